"""A slide at any pixel size: one affine map for the whole of it, so that tiles are crops of one picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Rect
from wsiseg.resampling import filtered, mirrored, taps
from wsiseg.slides.slide import Slide, level_shape

TOLERANCE = 0.01
"""A level whose pixels are up to this share larger than asked for counts as fine enough."""

STRIP = 256
"""Plan pixels a side that are resampled at once where a whole slide is."""


class PlanView:
    """A slide seen at `mpp`.

    Parameters
    ----------
    slide_mpp
        Microns per level-0 pixel.
    mpp
        Microns per pixel of the plan.

    Attributes
    ----------
    shape : (H, W)     of the plan
    scale : float      level-0 pixels per plan pixel
    level : int        the coarsest level that is fine enough; 0, enlarged, where none is

    The centre of plan pixel `p` lies at `(p + 1/2) * scale` of level 0. Filter weights depend on that
    position alone and are summed in a fixed order, so `read` gives, bit by bit, a crop of the whole.
    """

    def __init__(self, slide: Slide, slide_mpp: float, mpp: float) -> None:
        self.slide = slide
        self.scale = mpp / slide_mpp
        fine = [i for i, d in enumerate(slide.downsamples) if d <= self.scale * (1 + TOLERANCE)]
        self.level = max(fine, key=lambda i: slide.downsamples[i], default=0)
        self.shape = (
            max(1, round(slide.shape[0] / self.scale)),
            max(1, round(slide.shape[1] / self.scale)),
        )
        self._factor = self.scale / slide.downsamples[self.level]

    def read(self, rect: Rect) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 pixels of `rect`, in plan pixels; outside as the slide's `fill` says."""
        if (
            abs(self._factor - 1) * max(self.shape) < 0.5
        ):  # no pixel is off by half a pixel: nothing to filter
            return self._source(rect)
        down, across = taps(rect.y0, rect.y1, self._factor), taps(rect.x0, rect.x1, self._factor)
        (rows, _), (columns, _) = down, across
        source = self._source(
            Rect(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        )
        return filtered(source, (rows - rows.min(), down[1]), (columns - columns.min(), across[1]))

    def _source(self, rect: Rect) -> NDArray[np.uint8]:
        """Pixels of the level; mirrored outside where the slide is a plain image."""
        if self.slide.fill == "white":
            return self.slide.read(rect, self.level)
        shape = level_shape(self.slide, self.level)
        rows, columns = mirrored(rect.y0, rect.y1, shape[0]), mirrored(rect.x0, rect.x1, shape[1])
        part = Rect(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        pixels = self.slide.read(part, self.level)
        return np.ascontiguousarray(pixels[np.ix_(rows - part.y0, columns - part.x0)])


def thumbnail(slide: Slide, slide_mpp: float, *, mpp: float = 8.0) -> tuple[NDArray[np.uint8], float]:
    """The whole slide at `mpp`, (H, W, 3) uint8, and its mpp; made strip by strip, in bounded memory.

    A slide that would be less than 64 pixels on its short side is shown finer, but never enlarged.
    """
    short = min(slide.shape) * slide_mpp / 64
    mpp = max(slide_mpp, min(mpp, short))
    view = PlanView(slide, slide_mpp, mpp)
    picture = np.empty((*view.shape, 3), np.uint8)
    for part in pieces(view.shape):
        picture[part.slices()] = view.read(part)
    return picture, mpp


def pieces(shape: tuple[int, int]) -> Iterator[Rect]:
    """Squares of at most `STRIP` pixels that make up (H, W)."""
    for y in range(0, shape[0], STRIP):
        for x in range(0, shape[1], STRIP):
            yield Rect(y, x, min(y + STRIP, shape[0]), min(x + STRIP, shape[1]))
