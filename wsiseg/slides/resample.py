"""A slide at any pixel size: one affine map for the whole of it, so that tiles are crops of one picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsiseg.geometry import Rect
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


def resized(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) at another (H, W), filtered as slides are, mirrored outside."""
    sides = []
    for new, old in zip(shape, image.shape[:2], strict=True):
        index, weights = taps(0, new, old / new)
        folded = mirrored(int(index.min()), int(index.max()) + 1, old)
        sides.append((folded[index - index.min()], weights))
    return filtered(image, *sides)


def filtered(
    source: NDArray[np.uint8],
    down: tuple[NDArray[np.int64], NDArray[np.float32]],
    across: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> NDArray[np.uint8]:
    """Pixels (M, N, 3) through the `taps` of both axes: (h, w, 3) uint8."""
    # Along the rows first: enlarging, that is the smaller picture.
    wide = weighted(source.transpose(1, 0, 2), *across).transpose(1, 0, 2)
    full = weighted(wide, *down)
    full += np.float32(0.5)
    result: NDArray[np.uint8] = np.clip(full, 0, 255, out=full).astype(np.uint8)
    return result


def mirrored(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Indices `start` to `stop` folded back into 0..size - 1, edges repeated.

    >>> mirrored(-3, 5, 3).tolist()
    [2, 1, 0, 0, 1, 2, 2, 1]
    """
    index = np.arange(start, stop) % (2 * size)
    folded: NDArray[np.int64] = np.where(index < size, index, 2 * size - 1 - index)
    return folded


def taps(start: int, stop: int, factor: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Source pixels (N, K) and their weights (N, K) float32 for plan pixels `start` to `stop` along one axis.

    The cubic of Keys (1981), widened by `factor` source pixels per plan pixel where that is above 1.
    """
    width = max(1.0, factor)
    centre = (np.arange(start, stop) + 0.5) * factor - 0.5
    first = np.floor(centre - 2 * width).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(4 * width)))
    weights = keys_cubic((index - centre[:, None]) / width)
    return index, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def keys_cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution kernel with a = -1/2, zero from 2 on."""
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def weighted(
    pixels: NDArray[np.uint8] | NDArray[np.float32], index: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sums of rows `index` (N, K) of (M, ...) pixels, in the order of the taps: (N, ...) float32."""
    count, taken = index.shape
    ends = np.arange(0, count * taken + 1, taken)
    matrix = csr_array((weights.ravel(), index.ravel(), ends), shape=(count, len(pixels)))
    sums: NDArray[np.float32] = matrix @ pixels.reshape(len(pixels), -1).astype(np.float32)
    return sums.reshape(count, *pixels.shape[1:])


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
