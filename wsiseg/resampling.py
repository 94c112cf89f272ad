"""Pictures at another pixel size: the filter, apart from where pixels come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsiseg import compiled


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
    if compiled.AVAILABLE:
        return _filtered(source, *down, *across)
    # Along the rows first: enlarging, that is the smaller picture.
    wide = weighted(source.transpose(1, 0, 2), *across).transpose(1, 0, 2)
    full = weighted(wide, *down)
    full += np.float32(0.5)
    result: NDArray[np.uint8] = np.clip(full, 0, 255, out=full).astype(np.uint8)
    return result


@compiled.compiled_exactly
def _filtered(
    source: NDArray[np.uint8],
    rows: NDArray[np.int64],
    of_rows: NDArray[np.float32],
    columns: NDArray[np.int64],
    of_columns: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """The same sums in the same order, in half the time."""
    height, width = len(rows), len(columns)
    wide = np.empty((len(source), 3 * width), np.float32)
    for y in range(len(source)):
        for x in range(width):
            for channel in range(3):
                total = np.float32(0)
                for tap in range(columns.shape[1]):
                    total += of_columns[x, tap] * np.float32(source[y, columns[x, tap], channel])
                wide[y, 3 * x + channel] = total
    full, line = np.empty((height, 3 * width), np.uint8), np.empty(3 * width, np.float32)
    for y in range(height):
        line[:] = 0
        for tap in range(rows.shape[1]):
            weight, row = of_rows[y, tap], wide[rows[y, tap]]
            for x in range(3 * width):
                line[x] += weight * row[x]
        for x in range(3 * width):
            full[y, x] = np.uint8(min(max(line[x] + np.float32(0.5), np.float32(0)), np.float32(255)))
    return full.reshape(height, width, 3)


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
