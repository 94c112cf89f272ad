"""`wsiseg draw`: a picture of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._options import SlideMpp
from wsiseg.cli._report import reported, say
from wsiseg.errors import ConfigError


@reported
def draw(
    slide: Annotated[str, typer.Argument(help="The slide.", show_default=False)],
    result: Annotated[
        Path, typer.Argument(help="What was found in it: .geojson, .geojson.gz or .zip.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The picture: .png or .jpg.", show_default=False)
    ],
    region: Annotated[
        str | None,
        typer.Option(help="X,Y,WIDTH,HEIGHT in pixels of the slide, as QuPath shows them; else all."),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of the picture; else the slide's own.")
    ] = None,
    slide_mpp: SlideMpp = None,
    color: Annotated[str | None, typer.Option(help="R,G,B of the outlines; else that of each class.")] = None,
    width: Annotated[float, typer.Option(help="Of the outlines, pixels of the picture.")] = 1.5,
    tile_size: Annotated[int | None, typer.Option(help="Draw the borders of tiles of this size too.")] = None,
    tile_mpp: Annotated[float, typer.Option(help="The model's mpp, which the tile size is meant in.")] = 0.25,
) -> None:
    """Draw the outlines over the tissue, with a scale bar.

    wsiseg draw slide.svs slide.geojson -o slide.png --region 1000,2000,800,600
    """
    from wsiseg.geometry import Rect
    from wsiseg.preview import draw_slide
    from wsiseg.slides.slide import SlideRef

    rect = None
    if region is not None:
        x, y, w, h = numbers(region, 4, "--region")
        rect = Rect(y, x, y + h, x + w)
    height, wide = draw_slide(
        SlideRef(slide, mpp=slide_mpp),
        result,
        output,
        region=rect,
        mpp=mpp,
        color=None if color is None else rgb(color),
        width=width,
        tile_um=None if tile_size is None else tile_size * tile_mpp,
    )
    say(f"{output}: {wide} x {height} pixels")


def rgb(text: str) -> tuple[int, int, int]:
    """A colour from `R,G,B`.

    Raises
    ------
    ConfigError
        If it is none.
    """
    red, green, blue = numbers(text, 3, "--color")
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ConfigError(f"--color is {text!r}; each of its numbers is from 0 to 255")
    return red, green, blue


def numbers(text: str, count: int, option: str) -> list[int]:
    """Whole numbers with commas between them.

    >>> numbers("1, 2,3", 3, "--color")
    [1, 2, 3]

    Raises
    ------
    ConfigError
        If they are not `count` whole numbers.
    """
    parts = text.split(",")
    try:
        values = [int(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count:
        raise ConfigError(f"{option} is {text!r}; it takes {count} whole numbers with commas between them")
    return values
