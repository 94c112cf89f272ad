"""Nuclei that were drawn much too wide, in even surroundings.

Where there are few nuclei, what networks learned from points and colour clusters is a disc about each. No edge of the image
lies there, and one lies within: such a nucleus ends where it is as dark as that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.boundaries import DENSITY
from wsiseg.compiled import compiled_exactly

RING = 4
"""Steps (pixels) from an outline outwards within which what surrounds the nucleus is looked at."""
DARK = 0.9
"""Of a nucleus's pixels, this share is no darker than it is taken to be."""
LEVEL = 0.35
"""A nucleus ends where it is so much of the way from its surroundings' density to its own."""
EVEN = 0.2
"""Surroundings whose deviation is below this share of that way are even."""
COMPACT = 0.75
"""Area over that of an ellipse of the same moments: below, it is chromatin along the membrane of a pale nucleus."""
LEAST = 30
"""Pixels that must lie around a nucleus, and must be left of one."""


def without_halos(
    labels: NDArray[np.int32], red: NDArray[np.uint8], strength: NDArray[np.uint8], *, least_edge: float
) -> NDArray[np.int32]:
    """Nuclei without what surrounds them, where it was drawn as a part of them.

    A nucleus on whose free outline the mean strength of edges is below `least_edge`, in even surroundings, keeps what
    is darker than `LEVEL` of the way from them to itself: the largest piece of that, opened, without its holes, if it is
    compact.

    Parameters
    ----------
    labels : (H, W) int32     0 is background
    red : (H, W) uint8        of the image
    strength : (H, W) uint8   `boundaries.edge_strength`

    Returns
    -------
    (H, W) int32    the same numbers; all of them are still there
    """
    count = int(labels.max(initial=0))
    if least_edge <= 0 or not count:
        return labels
    strengths, lengths, boxes = _outlines(labels, strength, count)
    weak = np.flatnonzero((lengths > 0) & (strengths < least_edge * lengths))
    kept = labels.copy()
    _narrow(kept, labels, red, DENSITY.astype(np.int64), weak, boxes)
    return kept


@compiled_exactly
def _outlines(
    labels: NDArray[np.int32], strength: NDArray[np.uint8], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of labels 0..count: sum of the strength on the free outline, its pixels, and (y0, x0, y1, x1).

    Free is a pixel that has background beside it and no other nucleus.
    """
    height, width = labels.shape
    sums, lengths = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    boxes = np.zeros((count + 1, 4), np.int64)
    boxes[:, 0], boxes[:, 1] = height, width
    for y in range(height):
        above, here, below = labels[max(y - 1, 0)], labels[y], labels[min(y + 1, height - 1)]
        for x in range(width):
            own = here[x]
            if own == 0:
                continue
            left, right = here[max(x - 1, 0)], here[min(x + 1, width - 1)]
            if above[x] == own and below[x] == own and left == own and right == own:
                continue
            box = boxes[own]
            box[0], box[1] = min(box[0], y), min(box[1], x)
            box[2], box[3] = max(box[2], y + 1), max(box[3], x + 1)
            free = True
            for other in (above[x], below[x], left, right):
                free &= (other == 0) | (other == own)
            if free:
                sums[own] += strength[y, x]
                lengths[own] += 1
    return sums, lengths, boxes


@compiled_exactly
def _narrow(
    kept: NDArray[np.int32],
    labels: NDArray[np.int32],
    red: NDArray[np.uint8],
    density: NDArray[np.int64],
    weak: NDArray[np.int64],
    boxes: NDArray[np.int64],
) -> None:
    """Take from each of the `weak` nuclei in `kept` what is as pale as what surrounds it."""
    height, width = labels.shape
    for number in weak:
        y0, x0 = max(boxes[number, 0] - RING, 0), max(boxes[number, 1] - RING, 0)
        y1, x1 = min(boxes[number, 2] + RING, height), min(boxes[number, 3] + RING, width)
        here = labels[y0:y1, x0:x1]
        own = here == number
        dark = _blurred(red, density, y0, x0, y1, x1)
        near = own
        for _ in range(RING):
            near = _grown(near)
        around, inside = _where(dark, near & (here == 0)), _where(dark, own)
        if len(around) < LEAST:
            continue
        pale, deepest = np.sort(around)[len(around) // 2], np.sort(inside)[int(DARK * (len(inside) - 1))]
        if around.std() >= EVEN * (deepest - pale):
            continue
        core = _filled(own & (dark >= pale + LEVEL * (deepest - pale)))
        piece = _largest(_grown(_shrunk(core & own)))
        if piece.sum() < LEAST or _compactness(piece) < COMPACT:
            continue
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if own[y, x] and not piece[y, x]:
                    kept[y0 + y, x0 + x] = 0


@compiled_exactly
def _blurred(
    red: NDArray[np.uint8], density: NDArray[np.int64], y0: int, x0: int, y1: int, x1: int
) -> NDArray[np.int64]:
    """256 times the density of red in a box, under a binomial of variance 1 px; the image goes on beyond its borders."""
    height, width = red.shape
    weights = (1, 4, 6, 4, 1)
    rows = np.zeros((y1 - y0, x1 - x0 + 4), np.int64)
    for y in range(y1 - y0):
        for x in range(x1 - x0 + 4):
            across = min(max(x0 + x - 2, 0), width - 1)
            for k in range(5):
                rows[y, x] += weights[k] * density[red[min(max(y0 + y + k - 2, 0), height - 1), across]]
    blurred = np.zeros((y1 - y0, x1 - x0), np.int64)
    for k in range(5):
        blurred += weights[k] * rows[:, k : k + x1 - x0]
    return blurred


@compiled_exactly
def _where(values: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The values where the mask is set, in reading order."""
    found, count = np.empty(values.size, np.int64), 0
    for y in range(len(values)):
        for x in range(values.shape[1]):
            if mask[y, x]:
                found[count] = values[y, x]
                count += 1
    return found[:count]


@compiled_exactly
def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and all pixels beside it."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


@compiled_exactly
def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without the pixels that have one beside them that is not set, or the border of the box."""
    shrunk = np.zeros_like(mask)
    shrunk[1:-1, 1:-1] = (
        mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    )
    return shrunk


@compiled_exactly
def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and its holes: what no way of pixels side by side joins to the border of the box."""
    pieces = _pieces(~mask)
    outside = np.zeros(pieces.max() + 1, np.bool_)
    for y in range(len(mask)):
        outside[pieces[y, 0]], outside[pieces[y, -1]] = True, True
    for x in range(mask.shape[1]):
        outside[pieces[0, x]], outside[pieces[-1, x]] = True, True
    filled = mask.copy()
    for y in range(len(mask)):
        for x in range(mask.shape[1]):
            filled[y, x] |= pieces[y, x] > 0 and not outside[pieces[y, x]]
    return filled


@compiled_exactly
def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece of a mask; of equal ones that which begins first."""
    pieces = _pieces(mask)
    sizes = np.zeros(pieces.max() + 1, np.int64)
    for y in range(len(mask)):
        for x in range(mask.shape[1]):
            sizes[pieces[y, x]] += pieces[y, x] > 0
    return (pieces == np.argmax(sizes)) & mask


@compiled_exactly
def _compactness(mask: NDArray[np.bool_]) -> float:
    """Area over that of the ellipse whose moments are the same: 1 for an ellipse."""
    area, ys, xs, yy, xx, xy = 0, 0, 0, 0, 0, 0
    for y in range(len(mask)):
        for x in range(mask.shape[1]):
            if mask[y, x]:
                area, ys, xs, yy, xx, xy = area + 1, ys + y, xs + x, yy + y * y, xx + x * x, xy + x * y
    across = yy / area - (ys / area) ** 2 + 1 / 12, xx / area - (xs / area) ** 2 + 1 / 12
    both = xy / area - ys / area * (xs / area)
    return area / (4 * np.pi * np.sqrt(across[0] * across[1] - both * both))


@compiled_exactly
def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(h, w) numbers 1.. of the pieces of a mask, joined side by side, in reading order; 0 elsewhere."""
    height, width = mask.shape
    pieces, stack, count = np.zeros(mask.shape, np.int64), np.empty((mask.size, 2), np.int64), 0
    for y in range(height):
        for x in range(width):
            if not mask[y, x] or pieces[y, x]:
                continue
            count += 1
            pieces[y, x], stack[0, 0], stack[0, 1], waiting = count, y, x, 1
            while waiting:
                waiting -= 1
                v, u = stack[waiting, 0], stack[waiting, 1]
                for b, a in ((v - 1, u), (v + 1, u), (v, u - 1), (v, u + 1)):
                    if 0 <= b < height and 0 <= a < width and mask[b, a] and not pieces[b, a]:
                        pieces[b, a] = count
                        stack[waiting, 0], stack[waiting, 1] = b, a
                        waiting += 1
    return pieces
