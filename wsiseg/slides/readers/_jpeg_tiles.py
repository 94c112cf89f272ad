"""Tiles of JPEG in a TIFF, decoded straight into the rectangle that is asked for.

OpenSlide paints every tile on a canvas of colours with transparency: three quarters of its time go there. Where a file
is so plain that the same pixels can be had without, they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsiseg.geometry import Rect

VENDORS = ("aperio", "generic-tiff")
"""What OpenSlide calls the formats whose levels are pages of a TIFF, and nothing more."""


@dataclass(frozen=True, slots=True)
class Level:
    """A page of (H, W) in tiles of (h, w): where the bytes of each lie, and what makes pixels of them."""

    shape: tuple[int, int]
    side: tuple[int, int]
    offsets: Sequence[int]
    lengths: Sequence[int]
    tables: bytes | None
    decode: Callable[..., tuple[Any, ...]]

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.shape[1] // self.side[1])

    def place(self, row: int, column: int) -> Rect:
        """What a tile covers of the level."""
        high, wide = self.side
        whole = Rect(row * high, column * wide, (row + 1) * high, (column + 1) * wide)
        return whole.intersect(Rect(0, 0, *self.shape))

    def richest(self) -> Rect:
        """The tile with the most bytes: what two decoders differ in shows there."""
        return self.place(*divmod(int(np.argmax(self.lengths)), self.columns))


@dataclass(frozen=True, slots=True)
class JpegTiles:
    """Levels of a slide, by their number, whose tiles are all there; safe to use from several threads."""

    file: BinaryIO
    levels: Mapping[int, Level]
    lock: Lock = field(default_factory=Lock)

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 of a rectangle inside a level.

        Raises
        ------
        Exception
            Of any kind, if a tile cannot be decoded.
        """
        page = self.levels[level]
        high, wide = page.side
        out = np.empty((*rect.shape, 3), np.uint8)
        for row in range(rect.y0 // high, -(-rect.y1 // high)):
            for column in range(rect.x0 // wide, -(-rect.x1 // wide)):
                place = page.place(row, column)
                part = rect.intersect(place)
                tile = self._tile(page, row * page.columns + column)
                out[part.slices((rect.y0, rect.x0))] = tile[part.slices((place.y0, place.x0))]
        return out

    def _tile(self, page: Level, number: int) -> NDArray[np.uint8]:
        """(h, w, 3); cut at the far borders of the level."""
        with self.lock:
            self.file.seek(page.offsets[number])
            data = self.file.read(page.lengths[number])
        if len(data) < page.lengths[number]:
            raise EOFError(f"tile {number} ends with the file")
        tile: NDArray[np.uint8] = page.decode(data, number, jpegtables=page.tables)[0][0]
        return tile

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


NO_TILES = JpegTiles(BytesIO(), {})


def jpeg_tiles(path: str, shapes: Sequence[tuple[int, int]]) -> JpegTiles:
    """Of the levels of (H, W), those that are tiles of 8-bit RGB JPEG in a page of a TIFF."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and is_plain(page)]
            found = {level.shape: level for level in map(level_of, reversed(pages))}
    except Exception:  # tifffile raises all kinds; whatever it cannot read is read by OpenSlide
        return NO_TILES
    levels = {number: found[shape] for number, shape in enumerate(shapes) if shape in found}
    return JpegTiles(Path(path).open("rb"), levels) if levels else NO_TILES


def level_of(page: tifffile.TiffPage) -> Level:
    """A page as a level. What decodes it looks into its first tile, and so is made while the file is open."""
    shape, side = (page.imagelength, page.imagewidth), (page.tilelength, page.tilewidth)
    return Level(shape, side, page.dataoffsets, page.databytecounts, page.jpegtables, page.decode)


def is_plain(page: tifffile.TiffPage) -> bool:
    """Whether a page is tiles of 8-bit RGB JPEG, of which none is left out."""
    return (
        page.is_tiled
        and page.compression == tifffile.COMPRESSION.JPEG
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.imagedepth == 1
        and min(page.databytecounts) > 0
    )
