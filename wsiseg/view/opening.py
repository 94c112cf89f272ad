"""From paths to what the page shows: which is the slide, where it lies, and whether the results are its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from wsiseg.errors import ConfigError, InputError, SlideError, StoreError
from wsiseg.geometry import Rect
from wsiseg.outlines import SUFFIXES
from wsiseg.slides.opening import fingerprint, open_slide, resolve_mpp
from wsiseg.slides.slide import Slide, SlideRef
from wsiseg.view.content import Content
from wsiseg.view.pictures import SlidePictures
from wsiseg.view.results import Found, read_result

MOST_OUTSIDE = 0.01
"""Share of nuclei that may lie outside a slide: rounding at its border, and no more."""


def open_view(files: Sequence[str], *, slide_mpp: float | None = None, any_slide: bool = False) -> Content:
    """Open a slide and its results, or a result whose slide is found.

    Parameters
    ----------
    files
        A slide and one or two results, in this order; the slide may be left out where a store names it and
        it lies in the store's folder or the current one.
    slide_mpp
        Microns per level-0 pixel, instead of what the slide and the results say.
    any_slide
        Whether results of another slide are shown too.

    Raises
    ------
    ConfigError
        If that is not what was given.
    SlideError
        If the slide is not found, or cannot be read.
    InputError
        If a result cannot be read, or is of another slide.
    """
    first_is_slide = len(files) > 1 and not is_result(files[0])
    paths = [Path(name) for name in files[first_is_slide:]]
    if len(files) == 1 and not is_result(files[0]) and not files[0].lower().endswith(".zarr"):
        raise ConfigError(
            f"{files[0]}: no result is given; add the .zarr or .geojson that was made of this slide"
        )
    if not 1 <= len(paths) <= 2:
        raise ConfigError(f"{len(paths)} results are given; one or two can be shown, after their slide")
    results = [read_result(path) for path in paths]
    slide = files[0] if first_is_slide else str(find_slide(results))
    ref = SlideRef(slide, mpp=slide_mpp)
    opened = open_slide(ref)
    try:
        for found in results:
            if not any_slide:
                check(found, slide, opened)
        return Content(Path(slide).name, SlidePictures(opened), results, scale(opened, ref, results))
    except BaseException:
        opened.close()
        raise


def is_result(name: str) -> bool:
    """Whether a path is a result by its suffix; a zarr folder, by what it says of itself."""
    if name.lower().endswith(SUFFIXES):
        return True
    try:
        about = json.loads((Path(name) / "zarr.json").read_text(encoding="utf-8"))
        return str(about["attributes"]["format"]).startswith("wsiseg-nuclei")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_slide(results: Sequence[Found]) -> Path:
    """The slide that the first result names, in its folder or the current one.

    Raises
    ------
    SlideError
        If it names none, or it is not there.
    """
    found = results[0]
    if found.slide is None:
        raise SlideError(
            f"{found.path}: does not say of which slide it is; give it: wsiseg view SLIDE {found.path}"
        )
    folders = (found.path.resolve().parent, Path.cwd())
    for folder in folders:
        # A name and nothing more: a store from elsewhere does not choose what is opened here.
        if (path := folder / Path(found.slide).name).exists():
            return path
    places = " and ".join(sorted({str(folder) for folder in folders}))
    raise SlideError(
        f"{found.path}: its slide {found.slide} is not in {places}; give it: wsiseg view SLIDE {found.path}"
    )


def check(found: Found, slide: str, opened: Slide) -> None:
    """Refuse a result of another slide.

    Raises
    ------
    StoreError
        If the slide's content is not that of the store's.
    InputError
        If nuclei lie outside of the slide.
    """
    advice = "give its own slide, or --any-slide to look nevertheless"
    if found.fingerprint is not None and found.fingerprint != fingerprint(slide):
        named = f"{found.slide}, " if found.slide else ""
        raise StoreError(
            f"{found.path}: was made of another slide ({named}not the same content as {slide}); {advice}"
        )
    count = len(found.nuclei) - int(Rect(0, 0, *opened.shape).contains(found.nuclei.centroid).sum())
    if count > MOST_OUTSIDE * len(found.nuclei):
        height, width = opened.shape
        raise InputError(
            f"{found.path}: {count} of {len(found.nuclei)} nuclei lie outside {slide}, "
            f"which has {width} x {height} pixels; {advice}"
        )


def scale(opened: Slide, ref: SlideRef, results: Sequence[Found]) -> float | None:
    """Microns per level-0 pixel: what was given, what the slide or else a result says, or None."""
    if ref.mpp is not None:
        return resolve_mpp(opened, ref)
    try:
        return resolve_mpp(opened, ref)
    except SlideError:
        return next((found.mpp for found in results if found.mpp is not None), None)
