"""The report of one slide: a page with pictures, numbers and checks, complete in itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg import context
from wsiseg.draw import draw_lines, draw_outlines, draw_scale_bar
from wsiseg.errors import StoreError
from wsiseg.export import ExportInfo
from wsiseg.export.zarr import read_store
from wsiseg.geometry import Rect
from wsiseg.measure import AMBIGUOUS
from wsiseg.nuclei import NucleusTable
from wsiseg.regions import region_coverage, region_mask
from wsiseg.report import checks, pictures
from wsiseg.report.page import page
from wsiseg.report.summary import FIELD_UM, Summary, summarise
from wsiseg.slides.opening import fingerprint, open_slide
from wsiseg.slides.resample import PlanView, thumbnail
from wsiseg.slides.slide import Slide, SlideRef

PICTURED_UM = 75.0
"""Side of a pictured field, microns."""

FIELDS = 6
"""Pictured fields of each kind."""

FIELD_MPP = 0.25
"""Of a pictured field, or the slide's own where that is coarser."""

FOCUS_FIELDS, FOCUS_MPP = 24, 0.5
"""Fields of tissue whose sharpness is judged, and how they are looked at."""

SHOWN = ("Circularity", *context.NAMES)
NUCLEAR_STAIN = ("Hematoxylin: Mean", "Eosin: Mean", "DAB: Mean")
"""Measurements whose histograms are drawn."""

PICTURE = 1000
"""Longest side of the picture of the whole slide, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A pictured field.

    middle : (y, x)      level-0 pixels
    why : str            why it is shown
    """

    middle: tuple[float, float]
    why: str


def report_slide(slide: SlideRef, store: Path) -> tuple[str, Summary, tuple[checks.Check, ...]]:
    """The page of a slide and its store, what it says, and its checks.

    Raises
    ------
    StoreError
        If the store cannot be read, or is of another slide.
    SlideError
        If the slide cannot be read.
    """
    info, tables = read_store(store)
    with closing(open_slide(slide)) as opened:
        if fingerprint(slide.path) != info.fingerprint:
            raise StoreError(
                f"{store}: made of {info.provenance.get('slide')}, not of {slide.path}; give the slide it was made of"
            )
        counted = read_store(store)[1]
        summary = summarise(tables, info, opened.shape, expected=sum(len(table) for table in counted))
        picture, seen_mpp = thumbnail(opened, info.mpp, mpp=max(opened.shape) * info.mpp / PICTURE)
        scale = seen_mpp / info.mpp
        share = region_coverage(info.regions, picture.shape[:2], scale=scale)
        mm2 = float(share.sum()) * seen_mpp**2 / 1e6
        fields = region_mask(info.regions, summary.density.shape, scale=summary.field)
        flagged = checks.ambiguity(summary.columns.get(AMBIGUOUS))
        found = (
            checks.focus(list(sharpnesses(opened, summary, info))),
            checks.ink(picture, seen_mpp),
            checks.emptiness(summary, fields),
            checks.density(summary.count, mm2),
            checks.pixel_size(summary.median_area, info.mpp),
            *((flagged,) if flagged else ()),
        )
        shown = pictured(opened, store, info, list(places(summary)))
    lines = [ring for region in info.regions for ring in (region.exterior, *region.holes)]
    closed = [np.concatenate([ring, ring[:1]]) / scale for ring in lines]
    outlined = draw_lines(picture, closed, color=(20, 120, 40), width=2.0)
    density = pictures.density_map(picture, summary.density, summary.field / scale, fields)
    text = page(
        "slide.html",
        name=Path(slide.path).name,
        facts=facts(opened.shape, info, summary, mm2),
        classes=summary.classes if len(summary.classes) > 1 else {},
        checks=found,
        tissue=pictures.as_jpeg(outlined),
        field=f"{FIELD_UM:g}",
        density=pictures.as_jpeg(density),
        fields=[(place.why, pictures.as_jpeg(rgb)) for place, rgb in shown],
        histograms=histograms(summary),
        settings=flat(info.provenance),
    )
    return text, summary, found


def facts(
    shape: tuple[int, int], info: ExportInfo, summary: Summary, tissue_mm2: float
) -> list[tuple[str, str]]:
    """What the head of the page says."""
    height, width = shape
    return [
        ("nuclei", f"{summary.count:,}"),
        ("processed", f"{tissue_mm2:,.4g} mm²"),
        ("nuclei per mm²", f"{summary.count / tissue_mm2:,.0f}" if tissue_mm2 else "–"),
        ("median area", f"{summary.median_area:.0f} µm²" if summary.count else "–"),
        ("slide", f"{width:,} × {height:,} px of {info.mpp:.4g} µm"),
    ]


def places(summary: Summary) -> Iterator[Place]:
    """Fields to be shown: some anywhere, the least sure and the ambiguous ones, and the densest."""
    if not len(summary.score):
        return
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(summary.score))[:FIELDS].tolist():
        yield Place(tuple(summary.centroid[i].tolist()), "anywhere")
    for i in apart(summary.centroid, np.argsort(summary.score, kind="stable")):
        yield Place(tuple(summary.centroid[i].tolist()), f"least sure: probability {summary.score[i]:.2f}")
    flagged = np.flatnonzero(summary.columns.get(AMBIGUOUS, np.zeros(0)))
    for i in apart(summary.centroid, rng.permutation(flagged)):
        yield Place(tuple(summary.centroid[i].tolist()), "ambiguous: hard to tell from its neighbours")
    densest = np.unravel_index(int(summary.density.argmax()), summary.density.shape)
    away = np.abs(summary.centroid / summary.field - (np.array(densest) + 0.5)).max(1)
    yield Place(tuple(summary.centroid[int(away.argmin())].tolist()), "where nuclei are densest")


def apart(points: NDArray[np.float64], order: NDArray[np.int64], *, count: int = FIELDS) -> Iterator[int]:
    """The first `count` of an order that lie far from each other."""
    taken: list[int] = []
    far = np.ptp(points, axis=0).max() / 20
    for i in order[: 50 * count].tolist():
        if all(np.linalg.norm(points[i] - points[j]) > far for j in taken):
            taken.append(i)
            yield i
        if len(taken) == count:
            return


def sharpnesses(slide: Slide, summary: Summary, info: ExportInfo) -> Iterator[float]:
    """Of some fields with nuclei."""
    view = PlanView(slide, info.mpp, max(FOCUS_MPP, info.mpp))
    rng = np.random.default_rng(1)
    for i in rng.permutation(len(summary.centroid))[:FOCUS_FIELDS].tolist():
        yield checks.sharpness(view.read(around(summary.centroid[i] / view.scale, 256)))


def around(middle: NDArray[np.float64], side: int) -> Rect:
    """A square of `side` pixels about a place."""
    y0, x0 = (int(v) - side // 2 for v in middle)
    return Rect(y0, x0, y0 + side, x0 + side)


def pictured(
    slide: Slide, store: Path, info: ExportInfo, wanted: Sequence[Place]
) -> list[tuple[Place, NDArray[np.uint8]]]:
    """Fields with their outlines and a scale bar; the store is read once for all of them."""
    mpp = max(FIELD_MPP, info.mpp)
    view = PlanView(slide, info.mpp, mpp)
    frames = [around(np.array(place.middle) / view.scale, round(PICTURED_UM / mpp)) for place in wanted]
    fields = [np.repeat(np.repeat(view.read(here), 2, axis=0), 2, axis=1) for here in frames]
    for table in read_store(store)[1]:
        for i, here in enumerate(frames):
            corner = np.array([here.y0, here.x0])
            for number, color in enumerate(info.class_colors):
                rings = (2 * (ring / view.scale - corner) for ring in near(table, here, view.scale, number))
                fields[i] = draw_outlines(fields[i], rings, color=color, width=2.0)
    return [(place, draw_scale_bar(rgb, mpp=mpp / 2)) for place, rgb in zip(wanted, fields, strict=True)]


def near(table: NucleusTable, here: Rect, scale: float, label: int) -> Iterator[NDArray[np.floating]]:
    """Outlines of the nuclei of a class whose middle lies in a rectangle, or near it."""
    grown = here.grow(60)
    for i in np.flatnonzero((table.label == label) & grown.contains(table.centroid / scale)).tolist():
        yield table.vertices[table.offsets[i] : table.offsets[i + 1]]


def histograms(summary: Summary) -> list[str]:
    """Area, probability, and where they were measured circularity, stains in the nucleus and density."""
    if not len(summary.score):
        return []
    drawn = [
        pictures.histogram(summary.area, "area, µm²"),
        pictures.histogram(summary.score, "detection probability", limits=(0, 1)),
    ]
    for name, values in summary.columns.items():
        if (
            name in SHOWN
            or name.removeprefix("Nucleus: ") in SHOWN
            or (name.endswith(NUCLEAR_STAIN) and not name.startswith(("Cytoplasm", "Cell")))
        ):
            drawn.append(pictures.histogram(values, name))
    return drawn


def flat(values: Any, prefix: str = "") -> Sequence[tuple[str, str]]:
    """Provenance as (name, value), inner names after outer ones.

    >>> flat({"a": {"b": 1}, "c": [1, 2]})
    [('a: b', '1'), ('c', '1, 2')]
    """
    if isinstance(values, dict):
        return [
            row
            for name, value in values.items()
            for row in flat(value, f"{prefix}: {name}" if prefix else name)
        ]
    text = ", ".join(map(str, values)) if isinstance(values, (list, tuple)) else str(values)
    return [(prefix, text)] if text not in ("", "None") else []
