"""OpenSlide: svs, ndpi, mrxs, scn, bif, DICOM, generic tiled TIFF and more."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import openslide
from numpy.typing import NDArray

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.readers._jpeg_tiles import NO_TILES, VENDORS, JpegTiles, jpeg_tiles
from wsiseg.slides.slide import Fill, read_on_white

ORDER = 0


@dataclass(frozen=True, slots=True)
class OpenSlideReader:
    """A `Slide` read by OpenSlide, which is safe to use from several threads.

    handle     of no more use once a part of the slide could not be read
    tiles      levels that are read past it
    """

    handle: openslide.OpenSlide
    bounds: Rect
    path: str
    properties: Mapping[str, str]
    downsamples: tuple[float, ...]
    tiles: JpegTiles = NO_TILES
    fill: Fill = "white"

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        return self.bounds.shape

    @property
    def mpp(self) -> tuple[float, float] | None:
        """See `Slide`."""
        y, x = (self.properties.get(f"openslide.mpp-{axis}") for axis in "yx")
        return None if y is None or x is None else (float(y), float(x))

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`."""
        down = self.downsamples[level]
        whole = Rect(0, 0, round(self.shape[0] / down), round(self.shape[1] / down))

        def inside(part: Rect) -> NDArray[np.uint8]:
            if level in self.tiles.levels:
                # What is wrong with a tile, OpenSlide is to say, or to know better.
                with suppress(Exception):
                    return self.tiles.read(part, level)
            at = (round(part.x0 * down) + self.bounds.x0, round(part.y0 * down) + self.bounds.y0)
            try:
                rgba = np.asarray(self.handle.read_region(at, level, (part.width, part.height)))
            except openslide.OpenSlideError as error:
                raise SlideError(f"{self.path}: damaged at {part} of level {level} ({error})") from error
            return on_white(rgba)

        return read_on_white(rect, whole, inside)

    def close(self) -> None:
        """See `Slide`."""
        self.handle.close()
        self.tiles.close()


def open(path: str, use_bounds: bool) -> OpenSlideReader:  # the plug-in's one verb
    """Open a slide; see `slides.readers`."""
    handle = openslide.OpenSlide(path)
    width, height = handle.dimensions
    bounds = Rect(0, 0, height, width)
    properties = dict(handle.properties)
    keys = [f"openslide.bounds-{name}" for name in ("y", "x", "height", "width")]
    if use_bounds and all(key in properties for key in keys):
        y, x, high, wide = (int(properties[key]) for key in keys)
        bounds = Rect(y, x, y + high, x + wide).intersect(bounds)
    slide = OpenSlideReader(handle, bounds, path, properties, tuple(handle.level_downsamples))
    if properties["openslide.vendor"] not in VENDORS:
        return slide
    tiles = jpeg_tiles(path, [(high, wide) for wide, high in handle.level_dimensions])
    # Between whole pixels of a level OpenSlide interpolates; of others it has no doubt where they lie.
    whole = [level for level, down in enumerate(slide.downsamples) if down == round(down)]
    levels = {n: level for n, level in tiles.levels.items() if n in whole and same(slide, tiles, n)}
    return replace(slide, tiles=replace(tiles, levels=levels))


def same(slide: OpenSlideReader, tiles: JpegTiles, level: int) -> bool:
    """Whether tiles of a level give the pixels that OpenSlide gives, for the tile that has most to tell."""
    part = tiles.levels[level].richest()
    try:
        return np.array_equal(tiles.read(part, level), slide.read(part, level))
    except Exception:  # then OpenSlide reads it, or says what is wrong
        return False


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 4) with transparency, laid on white: where a scanner saw nothing, OpenSlide gives no colour."""
    if rgba[..., 3].min(initial=255) == 255:
        return rgba[..., :3]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
