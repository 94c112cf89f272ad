"""Make a large slide of a small one: enlarged twofold and mirrored over and over, as a tiled JPEG pyramid.

    python benchmarks/big_slide.py SOURCE OUT.tif --side 60000

The source is read a tile at a time and the result written a tile at a time, so neither is ever held whole. Its pixels
are half as large as the source's. Mirrored tissue fits at every edge, so no seam is in it that a slide would not have.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsiseg.geometry import Rect
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.slide import Slide, SlideRef

TILE = 512
SHRINK = (1, 4, 16)
"""Levels of the pyramid."""


def main() -> None:
    """Write the slide."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=60_000, help="pixels")
    options = parser.parse_args()
    ref = SlideRef(str(options.source))
    source = open_slide(ref)
    mpp = resolve_mpp(source, ref) / 2
    with tifffile.TiffWriter(options.output, bigtiff=True) as file:
        for shrink in SHRINK:
            side = -(-options.side // shrink)
            file.write(
                tiles(source, side, shrink),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=0 if shrink == 1 else 1,
                resolution=(1e4 / (mpp * shrink), 1e4 / (mpp * shrink)),
                resolutionunit="CENTIMETER",
            )
    source.close()


def tiles(source: Slide, side: int, shrink: int) -> Iterator[NDArray[np.uint8]]:
    """Every tile (512, 512, 3) of a level, row by row."""

    @lru_cache(maxsize=None if shrink > 1 else 64)
    def piece(row: int, column: int) -> NDArray[np.uint8]:
        """A square of the source, 256 pixels a side, at the size that it has in this level."""
        rect = Rect(row * 256, column * 256, row * 256 + 256, column * 256 + 256)
        size = TILE // shrink
        picture = Image.fromarray(source.read(rect, 0)).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(picture)

    rows, columns = source.shape[0] // 256, source.shape[1] // 256
    count = -(-side // TILE)
    for y in range(count):
        for x in range(count):
            tile = np.empty((TILE, TILE, 3), np.uint8)
            size = TILE // shrink
            for i in range(shrink):
                for j in range(shrink):
                    row, flipped = mirrored(y * shrink + i, rows)
                    column, turned = mirrored(x * shrink + j, columns)
                    part = piece(row, column)[:: -1 if flipped else 1, :: -1 if turned else 1]
                    tile[i * size : (i + 1) * size, j * size : (j + 1) * size] = part
            yield tile


def mirrored(index: int, count: int) -> tuple[int, bool]:
    """Where the `index`-th of a row that goes to and fro is among `count`, and whether it is mirrored there.

    >>> [mirrored(i, 3)[0] for i in range(8)]
    [0, 1, 2, 2, 1, 0, 0, 1]
    """
    period, place = divmod(index, count)
    return (count - 1 - place, True) if period % 2 else (place, False)


if __name__ == "__main__":
    main()
