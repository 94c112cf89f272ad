"""From outlines to label images: the way back from `wsiseg.polygons.trace`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiled import compiled


def fill(
    labels: NDArray[np.uint32],
    vertices: NDArray[np.floating],
    offsets: NDArray[np.int64],
    numbers: NDArray[np.integer],
) -> None:
    """Write `numbers` into the pixels of `labels` whose centres lie inside the n rings, in place.

    Parameters
    ----------
    labels : (H, W) uint32
        Only pixels that are 0 are written: where rings overlap, the first one has it.
    vertices : (V, 2)
        (y, x) with pixel corners at integers, one ring after another, not closed; may lie outside.
    offsets : (n + 1,) int64
    numbers : (n,)

    A ring that crosses itself is filled by the even-odd rule. Of two rings that share an edge, exactly one
    has each pixel.

    Examples
    --------
    >>> labels = np.zeros((3, 4), np.uint32)
    >>> square = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]])
    >>> fill(labels, square, np.array([0, 4]), np.array([7]))
    >>> labels.tolist()
    [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0]]
    """
    _fill(labels, np.asarray(vertices, np.float64), offsets, np.asarray(numbers, np.uint32))


@compiled
def _fill(
    labels: NDArray[np.uint32],
    vertices: NDArray[np.float64],
    offsets: NDArray[np.int64],
    numbers: NDArray[np.uint32],
) -> None:
    height, width = labels.shape
    for i in range(len(numbers)):
        start, stop = offsets[i], offsets[i + 1]
        ring = vertices[start:stop]
        if not len(ring):
            continue
        crossings = np.empty(len(ring))
        top = max(0, int(np.ceil(ring[:, 0].min() - 0.5)))
        bottom = min(height, int(np.ceil(ring[:, 0].max() - 0.5)))
        for row in range(top, bottom):
            y, count = row + 0.5, 0
            for k in range(len(ring)):
                # A ring's edge ends where the next begins, and the last at the first corner.
                y0, x0 = ring[k - 1, 0], ring[k - 1, 1]
                y1, x1 = ring[k, 0], ring[k, 1]
                if (y0 <= y) != (y1 <= y):
                    crossings[count] = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                    count += 1
            inside = np.sort(crossings[:count])
            for k in range(0, count - 1, 2):
                left = max(0, int(np.ceil(inside[k] - 0.5)))
                right = min(width, int(np.ceil(inside[k + 1] - 0.5)))
                for column in range(left, right):
                    if labels[row, column] == 0:
                        labels[row, column] = numbers[i]
