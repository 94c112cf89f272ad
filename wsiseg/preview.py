"""A picture of a segmented slide: tissue, outlines, borders of tiles, a scale bar."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.checks import check_range
from wsiseg.draw import Color, draw_grid, draw_outlines, draw_scale_bar
from wsiseg.errors import ConfigError, OutputError
from wsiseg.geometry import Rect
from wsiseg.outlines import read_outlines
from wsiseg.slides.opening import LEAST_MPP, open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef

MAX_PIXELS = 100_000_000
"""A picture larger than this is a mistake: about 300 MB in memory, and no viewer likes it."""
COARSEST = 1000.0
"""Microns per pixel: a slide is then a stamp of some dozen pixels."""
WIDEST = 100.0
"""Pixels of an outline."""
SMALLEST_TILE, LARGEST_TILE = 5.0, 100_000.0
"""Microns a side."""


def draw_slide(
    slide: SlideRef,
    result: Path,
    out: Path,
    *,
    region: Rect | None = None,
    mpp: float | None = None,
    color: Color | None = None,
    width: float = 1.5,
    tile_um: float | None = None,
) -> tuple[int, int]:
    """Draw what was found over the tissue, into a PNG or JPEG file; return the picture's (height, width).

    Parameters
    ----------
    result
        GeoJSON of this slide (`wsiseg.outlines` says which suffixes).
    region
        Level-0 pixels; the whole slide, where it is None.
    mpp
        Microns per pixel of the picture; the slide's own, where it is None.
    color
        Of all outlines; that of each class, where it is None.
    width
        Of an outline, in pixels of the picture.
    tile_um
        Side of a core (its pixels times the model's mpp): borders of cores are drawn, to look at the seams.

    Raises
    ------
    SlideError
        If the slide cannot be read or has no pixel size.
    ConfigError
        If a number is outside its range, the region does not meet the slide, or the picture would be empty or enormous.
    InputError
        If `result` cannot be read.
    OutputError
        If `out` cannot be written.
    """
    check_range("mpp", mpp, LEAST_MPP, COARSEST)
    check_range("width", width, 0.1, WIDEST)
    check_range("tile size in microns", tile_um, SMALLEST_TILE, LARGEST_TILE)
    opened = open_slide(slide)
    try:
        level0 = resolve_mpp(opened, slide)
        whole = Rect(0, 0, *opened.shape)
        region = region or whole
        if not region.intersect(whole).area:
            raise ConfigError(
                f"the region {region.width} x {region.height} at x {region.x0}, y {region.y0} does not meet the slide, "
                f"{whole.width} x {whole.height} pixels"
            )
        scale = (mpp or level0) / level0
        frame = scaled(region, 1 / scale)
        check_size(frame)
        rgb = PlanView(opened, level0, mpp or level0).read(frame)
    finally:
        opened.close()
    for own, rings in read_outlines(result, region).items():
        moved = [ring / scale - (frame.y0, frame.x0) for ring in rings]
        rgb = draw_outlines(rgb, moved, color=color or own, width=width)
    if tile_um is not None:
        rgb = draw_grid(rgb, step=tile_um / (level0 * scale), origin=(-frame.y0, -frame.x0))
    save(draw_scale_bar(rgb, mpp=level0 * scale), out)
    return frame.shape


def scaled(rect: Rect, factor: float) -> Rect:
    """Smallest rectangle of whole pixels that holds `rect`, `factor` times as large.

    >>> scaled(Rect(1, 2, 5, 5), 0.5)
    Rect(y0=0, x0=1, y1=3, x1=3)
    """
    return Rect(
        math.floor(rect.y0 * factor),
        math.floor(rect.x0 * factor),
        math.ceil(rect.y1 * factor),
        math.ceil(rect.x1 * factor),
    )


def check_size(frame: Rect) -> None:
    """Refuse a picture of no pixels, or of more than anyone looks at.

    Raises
    ------
    ConfigError
        Telling its size.
    """
    if not 0 < frame.area <= MAX_PIXELS:
        raise ConfigError(
            f"the picture would be {frame.width} x {frame.height} pixels; 1 to {MAX_PIXELS} are allowed; "
            "give another region or a coarser mpp"
        )


def save(rgb: NDArray[np.uint8], out: Path) -> None:
    """Write a picture; it appears under its name when it is complete.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give a .png or .jpg in it")
    temporary = out.with_name(f".{out.stem}.tmp{out.suffix}")
    try:
        Image.fromarray(rgb).save(temporary)
        temporary.replace(out)
    except (OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{out}: the picture cannot be written ({error}); give a .png in a folder that exists"
        ) from error
