"""Outlines that settle on the edges of the image.

Points say nothing of where a nucleus ends, and what networks learn of it from colour clusters is a pixel or two off.
The image knows: near its drawn outline, a nucleus ends where the optical density changes most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from wsiseg import compiled
from wsiseg.smooth import smoothed

DENSITY = np.rint(-64 * np.log((np.arange(256) + 1) / 256)).astype(np.float32)
"""Optical density of each value of red in 64ths: whole numbers, so that sums are the same in any order."""

_SCALE = 510 / (64 * 16 * 8)
"""From sums to the answer: 255 is 0.5; density's unit, and the sums of the weights across an edge and along it."""


def edge_strength(red: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much the optical density of red changes, (H, W) to (H, W) uint8; 255 is 0.5 a pixel and more.

    The magnitude of the gradient under a binomial of variance 1 px. Haematoxylin and DAB are dark in red, eosin is not.
    A pixel sees two to each side; the image goes on beyond its borders as it is there.

    >>> edge_strength(np.array([[255, 255, 255, 190, 190, 190]], np.uint8)).tolist()
    [[0, 18, 56, 56, 18, 0]]
    """
    density = DENSITY[red]
    if compiled.AVAILABLE:
        return _edge_strength(np.pad(density, 2, mode="edge"))
    smooth, steep = (1, 4, 6, 4, 1), (-1, -2, 0, 2, 1)
    slopes = [
        ndimage.correlate1d(
            ndimage.correlate1d(density, a, axis=0, mode="nearest"), b, axis=1, mode="nearest"
        )
        for a, b in ((smooth, steep), (steep, smooth))
    ]
    return np.minimum(np.hypot(*slopes) * np.float32(_SCALE), 255).astype(np.uint8)


@compiled.compiled_exactly
def _edge_strength(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = density.shape[0] - 4, density.shape[1] - 4
    strength = np.empty((height, width), np.uint8)
    smooth, steep = np.empty(width + 4, np.float32), np.empty(width + 4, np.float32)
    for y in range(height):
        a, b, c, d, e = density[y], density[y + 1], density[y + 2], density[y + 3], density[y + 4]
        for x in range(width + 4):
            smooth[x] = a[x] + e[x] + np.float32(4) * (b[x] + d[x]) + np.float32(6) * c[x]
            steep[x] = e[x] - a[x] + np.float32(2) * (d[x] - b[x])
        for x in range(width):
            across = smooth[x + 4] - smooth[x] + np.float32(2) * (smooth[x + 3] - smooth[x + 1])
            down = steep[x] + steep[x + 4] + np.float32(4) * (steep[x + 1] + steep[x + 3])
            down += np.float32(6) * steep[x + 2]
            slope = np.sqrt(across * across + down * down) * np.float32(_SCALE)
            strength[y, x] = np.uint8(min(slope, np.float32(255)))
    return strength


def settled(
    labels: NDArray[np.int32],
    strength: NDArray[np.uint8],
    *,
    inner: int,
    outer: int,
    sigma: float = 2.0,
) -> NDArray[np.int32]:
    """Nuclei whose outlines lie on edges of the image, and are smooth.

    Pixels up to `inner` steps inside an outline and `outer` steps outside are given anew, by a watershed on the
    strength of edges (Meyer 1991) from all others. Then masks are made smooth (`wsiseg.smooth`).

    Parameters
    ----------
    labels : (H, W) int32     0 is background
    strength : (H, W) uint8   `edge_strength`

    Returns
    -------
    (H, W) int32    the same numbers
    """
    if not compiled.AVAILABLE:
        return smoothed(_watershed(labels, strength, inner, outer), sigma)
    return smoothed(_flood(_opened(labels, inner, outer), labels, strength), sigma)


def _watershed(
    labels: NDArray[np.int32], strength: NDArray[np.uint8], inner: int, outer: int
) -> NDArray[np.int32]:
    """The same without compiled loops, but for pixels that two neighbours reach at once."""
    nucleus, unlike = labels > 0, np.zeros(labels.shape, bool)
    for axis in (0, 1):
        step = np.diff(labels, axis=axis) != 0
        unlike |= np.insert(step, 0, False, axis) | np.insert(step, step.shape[axis], False, axis)
    rim = ndimage.binary_dilation(unlike, iterations=inner - 1) if inner > 1 else unlike
    grown = ndimage.binary_dilation(nucleus, iterations=outer) if outer else nucleus
    kept = np.where(nucleus, ~rim | (inner == 0), ~grown)
    ground = int(labels.max(initial=0)) + 1
    flooded = watershed(strength, np.where(kept, np.where(nucleus, labels, ground), 0))
    flooded = np.where(flooded == 0, labels, np.where(flooded == ground, 0, flooded))
    return flooded.astype(np.int32)


@compiled.compiled
def _opened(labels: NDArray[np.int32], inner: int, outer: int) -> NDArray[np.int32]:
    """(H + 2, W + 2) labels, -1 where a pixel is to be given anew; in a frame of zeros."""
    height, width = labels.shape
    shape = height + 2, width + 2
    out = np.zeros(shape, np.int32)
    nucleus, rim = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for y in range(height):
        above, here, below = labels[max(y - 1, 0)], labels[y], labels[min(y + 1, height - 1)]
        row, full, edge = out[y + 1], nucleus[y + 1], rim[y + 1]
        for x in range(width):
            row[x + 1] = here[x]
            full[x + 1] = here[x] > 0
            edge[x + 1] = (here[x] != above[x]) | (here[x] != below[x])
        # Two loops, each of which is one vector instruction for many pixels.
        for x in range(width - 1):
            edge[x + 1] |= here[x] != here[x + 1]
        for x in range(width - 1):
            edge[x + 2] |= here[x] != here[x + 1]
    grown, inside = nucleus, np.uint8(inner > 0)
    for _ in range(outer):
        grown = _grown(grown)
    for _ in range(inner - 1):
        rim = _grown(rim)
    for y in range(1, height + 1):
        row, full, edge, wide = out[y], nucleus[y], rim[y], grown[y]
        for x in range(1, width + 1):
            row[x] = -1 if (full[x] & edge[x] & inside) | (wide[x] & ~full[x]) else row[x]
    return out


@compiled.compiled
def _grown(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask (H, W) of 0 and 1 and all pixels beside it; the outermost stay 0."""
    out = np.zeros_like(mask)
    for y in range(1, len(mask) - 1):
        above, here, below, row = mask[y - 1], mask[y], mask[y + 1], out[y]
        left, right = here[:-2], here[2:]
        for x in range(len(left)):
            row[x + 1] = above[x + 1] | below[x + 1] | here[x + 1] | left[x] | right[x]
    return out


@compiled.compiled
def _flood(
    out: NDArray[np.int32], labels: NDArray[np.int32], strength: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """The watershed: open pixels (`_opened`) are reached over the weakest edges first, of equal ones in turn.

    Each strength has its queue, whose length is known beforehand. An open pixel that nothing reaches keeps its label.
    """
    height, width = labels.shape
    wide, flat = width + 2, out.reshape(-1)
    begin = np.zeros(257, np.int32)
    for y in range(height):
        for x in range(width):
            if out[y + 1, x + 1] < 0:
                # The strength stands where the label will be: one look at memory tells both.
                out[y + 1, x + 1] = -1 - strength[y, x]
                begin[strength[y, x] + 1] += 1
    seeds, count = np.empty(out.size, np.int32), 0
    for y in range(1, height + 1):
        for p in range(y * wide + 1, y * wide + width + 1):
            beside = min(min(flat[p - wide], flat[p + wide]), min(flat[p - 1], flat[p + 1]))
            seeds[count] = p
            count += (flat[p] >= 0) & (beside < 0)
    for p in seeds[:count]:
        begin[strength[p // wide - 1, p % wide - 1] + 1] += 1
    begin = np.cumsum(begin)
    first, last, queue = begin[:256].copy(), begin[:256].copy(), np.empty(begin[256], np.int32)
    for p in seeds[:count]:
        level = strength[p // wide - 1, p % wide - 1]
        queue[last[level]] = p
        last[level] += 1
    low = 0
    while low < 256:
        if first[low] == last[low]:
            low += 1
            continue
        p = queue[first[low]]
        first[low] += 1
        for q in (p - wide, p - 1, p + 1, p + wide):
            if flat[q] < 0:
                level = -1 - flat[q]
                flat[q] = flat[p]
                queue[last[level]] = q
                last[level] += 1
                low = min(low, level)
    flooded = np.empty_like(labels)
    for y in range(height):
        for x in range(width):
            flooded[y, x] = labels[y, x] if out[y + 1, x + 1] < 0 else out[y + 1, x + 1]
    return flooded
