"""A slide in deep zoom: square JPEG tiles, each step half as fine as the one before."""

from __future__ import annotations

import io
import math
import os
from functools import lru_cache
from threading import BoundedSemaphore, Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Slide, level_shape

SIDE = 512
"""Pixels of a tile."""

QUALITY = 88
"""Of the JPEG: above what slides themselves are stored with."""

FARTHEST = 4.0
"""A tile is reduced at most so much from a level of the slide; beyond, from four tiles of the step before it.
So a slide without a pyramid is read once, piece by piece, and never a large piece at a time."""

TOLERANCE = 0.01
"""A level whose pixels are up to this share larger than asked for counts as fine enough."""

KEPT = 128
"""Tiles made of others that are kept as pixels, 0.75 MiB each."""

ENCODED = 512
"""Tiles that are kept as JPEG, some 100 KiB each."""


class SlidePictures:
    """The tiles of an open slide; they may be asked for from several threads.

    Attributes
    ----------
    shape : (H, W)    of the slide's level 0, pixels
    steps : int       how many there are; step k has pixels of 2 ** k level-0 pixels, the last is one tile
    """

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.shape = slide.shape
        self.steps = 1 + max(0, math.ceil(math.log2(max(slide.shape) / SIDE)))
        self.jpeg = lru_cache(ENCODED)(self._jpeg)
        self._made = lru_cache(KEPT)(self._from_finer)
        self._workers = max(2, os.cpu_count() or 1)
        self._free = BoundedSemaphore(self._workers)
        # Two who ask for the same coarse tile would both read all that lies below it.
        self._one = Lock()
        self._closed = False

    def size(self, step: int) -> tuple[int, int]:
        """(h, w) pixels of the whole slide at a step."""
        return -(-self.shape[0] >> step), -(-self.shape[1] >> step)

    def has(self, step: int, row: int, column: int) -> bool:
        """Whether there is such a tile."""
        if not 0 <= step < self.steps or row < 0 or column < 0:
            return False
        height, width = self.size(step)
        return row * SIDE < height and column * SIDE < width

    def _jpeg(self, step: int, row: int, column: int) -> bytes:
        """A tile as JPEG; tiles at the right and lower border are smaller.

        Raises
        ------
        SlideError
            If there is no such tile, if the slide is damaged there, or has been closed.
        """
        if not self.has(step, row, column):
            raise SlideError(f"there is no tile {row}, {column} at step {step}")
        with self._free:
            if self._closed:
                raise SlideError("the slide has been closed")
            out = io.BytesIO()
            Image.fromarray(self._pixels(step, row, column)).save(out, "JPEG", quality=QUALITY)
            return out.getvalue()

    def _pixels(self, step: int, row: int, column: int) -> NDArray[np.uint8]:
        level = self._level(step)
        factor = 2.0**step / self.slide.downsamples[level]
        if factor > FARTHEST:
            with self._one:
                return self._made(step, row, column)
        return reduced(self.slide, level, factor, self._rect(step, row, column))

    def _from_finer(self, step: int, row: int, column: int) -> NDArray[np.uint8]:
        """A tile from the four of the step before it."""
        rect = self._rect(step, row, column)
        height, width = self.size(step - 1)
        finer = np.empty(
            (min(2 * SIDE, height - 2 * rect.y0), min(2 * SIDE, width - 2 * rect.x0), 3), np.uint8
        )
        level = self._level(step - 1)
        factor = 2.0 ** (step - 1) / self.slide.downsamples[level]
        for i, j in ((i, j) for i in (0, 1) for j in (0, 1)):
            if not self.has(step - 1, 2 * row + i, 2 * column + j):
                continue
            where = self._rect(step - 1, 2 * row + i, 2 * column + j)
            if factor > FARTHEST:
                part = self._made(step - 1, 2 * row + i, 2 * column + j)
            else:
                part = reduced(self.slide, level, factor, where)
            finer[where.slices((2 * rect.y0, 2 * rect.x0))] = part
        return np.asarray(Image.fromarray(finer).reduce(2))

    def _level(self, step: int) -> int:
        """The coarsest level of the slide that is fine enough for a step."""
        downs = self.slide.downsamples
        return max(
            (i for i, d in enumerate(downs) if d <= 2.0**step * (1 + TOLERANCE)), key=downs.__getitem__
        )

    def _rect(self, step: int, row: int, column: int) -> Rect:
        whole = Rect(0, 0, *self.size(step))
        return Rect(row * SIDE, column * SIDE, (row + 1) * SIDE, (column + 1) * SIDE).intersect(whole)

    def close(self) -> None:
        """Let go of the slide, once no tile is being read."""
        for _ in range(self._workers):
            self._free.acquire()
        self._closed = True
        self.slide.close()
        for _ in range(self._workers):
            self._free.release()


def reduced(slide: Slide, level: int, factor: float, rect: Rect) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: `rect`, in pixels that are `factor` pixels of `level`, averaged."""
    height, width = level_shape(slide, level)
    # A step's size is rounded up: its last pixel may reach beyond the level.
    y1, x1 = min(rect.y1 * factor, height), min(rect.x1 * factor, width)
    y0, x0 = min(rect.y0 * factor, y1 - 1), min(rect.x0 * factor, x1 - 1)
    source = Rect(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1))
    pixels = slide.read(source, level)
    if source.shape == rect.shape:
        return pixels
    box = (x0 - source.x0, y0 - source.y0, x1 - source.x0, y1 - source.y0)
    size = (rect.width, rect.height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, box=box))
