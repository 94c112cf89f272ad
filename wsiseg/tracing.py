"""Nuclei around points, traced along the edges of the image.

Colour finds the chromatin of a pale nucleus, not the membrane around it, and networks that learned from colour do no
better. But where a point is known to lie in a nucleus, its outline is a closed curve that every ray from the point
meets once, and of all such curves a best one is found by dynamic programming from ray to ray (Timp and Karssemeijer
2004, of masses in mammograms; nuclei as star-convex shapes: Schmidt et al. 2018).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon

from wsiseg.boundaries import DENSITY

RAYS = 32
STEPS = 36
"""Samples of a ray."""
TYPICAL = 12
"""Samples to the outline of a nucleus of typical size: all lengths go with it."""
LEAST = 3
"""Samples to an outline at least."""
JUMP = 3
"""Samples by which neighbouring rays may differ in length at most."""
BLUR = 1.0
"""Sigma of the blur before the density's slope is taken, samples."""
# What a curve is worth, sample by sample; `benchmarks/accuracy/README.md` has how these were chosen.
STEEPEST = 5.0
"""A slope counts in units of its root mean square around the point, and no more than so many of them."""
INSIDE, SURE = 0.3, 0.1
"""Each sample within the curve counts INSIDE times (its probability - SURE)."""
FOREIGN = 1.0
"""Each sample within the curve that is nearer to another point costs this."""
SIZE = 0.75
"""Times the squared logarithm of a ray's length over TYPICAL: what it costs to be of another size."""
STIFF = 0.08
"""Times the squared difference of neighbouring rays' lengths: what it costs to be jagged."""
LONGEST = 2.0
"""Rays along a nucleus are at most so many times longer than those of a round one, those across it so many times shorter."""
AT_ONCE = 1_000
"""Points whose rays are held in memory at a time."""


def traced(
    red: NDArray[np.uint8],
    points: NDArray[np.floating],
    probability: NDArray[np.floating],
    cells: NDArray[np.integer],
    *,
    radius: float,
) -> NDArray[np.int32]:
    """The nucleus of each point: the star-convex outline along which density falls most from the inside outwards.

    Traced twice: clicks lie anywhere in a nucleus, and some are long. The second time rays begin in the middle of the
    first outline, and are as long in each direction as it is.

    Parameters
    ----------
    red : (H, W) uint8            of the image; haematoxylin and DAB are dark in it
    points : (N, 2) float         (y, x)
    probability : (H, W) float    of a nucleus, from a trained network
    cells : (H, W) int            `pseudo_labels.voronoi_cells`: which point, from 1, is nearest
    radius
        Of a typical nucleus, pixels; outlines end at three times that.

    Returns
    -------
    (H, W) int32    1..N the points' nuclei, 0 is background; where two overlap, the smaller one has the pixel
    """
    labels = np.zeros(red.shape, np.int32)
    if not len(points):
        return labels
    step = radius / TYPICAL
    density = ndimage.gaussian_filter(DENSITY[red], BLUR * step)
    numbers = np.arange(1, len(points) + 1)
    outlines = np.concatenate(
        [
            _outlines(density, points[i : i + AT_ONCE], probability, cells, numbers[i : i + AT_ONCE], step)
            for i in range(0, len(points), AT_ONCE)
        ]
    )
    for index in np.argsort(-_areas(outlines), kind="stable"):
        rows, columns = outlines[index].T
        labels[polygon(rows, columns, red.shape)] = index + 1
    return labels


def _outlines(
    density: NDArray[np.floating],
    points: NDArray[np.floating],
    probability: NDArray[np.floating],
    cells: NDArray[np.integer],
    numbers: NDArray[np.integer],
    step: float,
) -> NDArray[np.float64]:
    """(N, RAYS, 2) corners (y, x), as indices of pixels."""
    centre = points - 0.5  # the middle of pixel 0 is index 0 here
    directions = np.broadcast_to(DIRECTIONS, (len(points), *DIRECTIONS.shape))
    for _ in range(2):
        rays = centre[:, None, None] + directions[:, :, None] * (np.arange(STEPS) * step)[:, None]
        worth = _worth(
            _along(density, rays, 1),
            _along(probability, rays, 1),
            _along(cells, rays, 0) != numbers[:, None, None],
        )
        outlines = centre[:, None] + directions * (best_lengths(worth) * step)[..., None]
        centre = _middles(outlines)
        directions = DIRECTIONS @ _stretches(outlines - centre[:, None])
    return outlines


_ANGLES = np.arange(RAYS) * (2 * np.pi / RAYS)
DIRECTIONS = np.stack([np.sin(_ANGLES), np.cos(_ANGLES)], axis=1)
"""(RAYS, 2) of the rays, as (y, x)."""


def _along(maps: NDArray[Any], rays: NDArray[np.float64], order: Literal[0, 1]) -> NDArray[np.float32]:
    """(N, RAYS, STEPS) values of a map (H, W) on rays (N, RAYS, STEPS, 2); it goes on beyond its borders as it is there."""
    values = ndimage.map_coordinates(maps, np.moveaxis(rays, -1, 0), order=order, mode="nearest")
    return values.astype(np.float32)


def _worth(
    density: NDArray[np.float32], probability: NDArray[np.float32], foreign: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(N, RAYS, STEPS) what it is worth that the outline crosses a ray at a sample."""
    fall = -np.gradient(density, axis=2)
    usual = np.sqrt((fall**2).mean(axis=(1, 2), keepdims=True)) + 1e-6
    edge = np.clip(fall / usual, -STEEPEST, STEEPEST)
    within = np.cumsum(INSIDE * (probability - SURE) - FOREIGN * foreign, axis=2)
    size = SIZE * np.log(np.maximum(1, np.arange(STEPS)) / TYPICAL) ** 2
    worth = edge + within - size
    worth[..., :LEAST] = -1e3
    return worth.astype(np.float32)


def best_lengths(worth: NDArray[np.float32], *, jump: int = JUMP, stiff: float = STIFF) -> NDArray[np.int64]:
    """For each point the sample on every ray where the closed curve of most worth crosses it, (N, RAYS, STEPS) to (N, RAYS).

    Neighbouring rays differ by no more than `jump` samples, and each difference d costs `stiff` d^2. Dynamic programming
    goes twice round and the middle is kept, where the curve hardly knows that it has ends.

    >>> worth = np.zeros((1, 8, 5), np.float32)
    >>> worth[:, :, 2] = 1
    >>> worth[:, 3, 4] = 1.2
    >>> best_lengths(worth, stiff=0.08).tolist()
    [[2, 2, 2, 2, 2, 2, 2, 2]]
    """
    count, rays, steps = worth.shape
    ahead = rays // 2
    order = np.arange(-ahead, rays + ahead) % rays
    came = np.zeros((len(order), count, steps), np.int8)
    total = worth[:, order[0]].copy()
    for turn, ray in enumerate(order[1:], 1):
        options = np.full((2 * jump + 1, count, steps), -np.inf, np.float32)
        for option, by in zip(options, range(-jump, jump + 1), strict=True):
            low, high = max(0, -by), steps - max(0, by)
            option[:, low:high] = total[:, low + by : high + by] - stiff * by**2
        best = options.argmax(axis=0)
        came[turn] = best - jump
        total = np.take_along_axis(options, best[None], axis=0)[0] + worth[:, ray]
    length, each = total.argmax(axis=1), np.arange(count)
    lengths = np.zeros((count, rays), np.int64)
    for turn in range(len(order) - 1, -1, -1):
        if ahead <= turn < ahead + rays:
            lengths[:, order[turn]] = length
        length = length + came[turn, each, length]
    return lengths


def _areas(outlines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) of outlines (N, K, 2), by the shoelace formula."""
    return np.abs(_crosses(outlines).sum(axis=1)) / 2


def _middles(outlines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) centroids of outlines (N, K, 2)."""
    crosses = _crosses(outlines)
    sums = (outlines + np.roll(outlines, -1, axis=1)) * crosses[..., None]
    return sums.sum(axis=1) / (3 * crosses.sum(axis=1))[:, None]


def _stretches(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 2) symmetric, of determinant 1: what makes a circle as long as outlines (N, K, 2) around (0, 0) are."""
    moments = corners.swapaxes(1, 2) @ corners / corners.shape[1] + 1e-3 * np.eye(2)
    squares, axes = np.linalg.eigh(moments)
    long = np.minimum((squares[:, 1] / squares[:, 0]) ** 0.25, LONGEST)
    scales = np.stack([1 / long, long], axis=1)
    return (axes * scales[:, None]) @ axes.swapaxes(1, 2)


def _crosses(outlines: NDArray[np.float64]) -> NDArray[np.float64]:
    following = np.roll(outlines, -1, axis=1)
    return outlines[..., 0] * following[..., 1] - outlines[..., 1] * following[..., 0]
