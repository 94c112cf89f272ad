"""From label images to outlines that run along the edges of pixels."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

STEPS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
"""(y, x) of the four directions: right, down, left, up; the nucleus lies to the right of the way."""

TOLERANCE = 0.45
"""Pixels that a simplified outline may stray from the traced one: less than a pixel's own doubt."""


def trace(labels: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Outlines of labels 1..n.

    Parameters
    ----------
    labels : (H, W) int    0 is background; no gaps

    Returns
    -------
    vertices : (V, 2) float32    (y, x) with pixel corners at integers, one ring after another, not closed
    offsets : (n + 1,) int64     ring of label `i + 1` is `vertices[offsets[i]:offsets[i + 1]]`

    The exterior ring of the largest 4-connected piece of each label runs along its pixels' edges; holes are
    left out. The staircase is cut at the middles of its edges, simplified within half a pixel, and scaled
    about its centre to the area of the pixels it encloses.

    Raises
    ------
    ValueError
        If a label in 1..n has no pixel.
    """
    count = int(labels.max(initial=0))
    if not count:
        return np.zeros((0, 2), np.float32), np.zeros(1, np.int64)
    corners, offsets = exterior_rings(labels, count)
    return simplified(corners, offsets)


def exterior_rings(labels: NDArray[np.integer], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(V, 2) corners of the largest exterior ring of labels 1..count, a corner a pixel edge; offsets."""
    start, direction, owner = cracks(labels)
    following = next_cracks(start, direction, owner, (labels.shape[0] + 1, labels.shape[1] + 1))
    order, ends = walk(following)
    y, x = start[order].T
    y1, x1 = start[following[order]].T
    ring = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    # Shoelace: exterior rings turn clockwise on the screen, which counts positive with y down.
    area = np.bincount(ring, (x * y1 - x1 * y) / 2, minlength=len(ends))
    label = owner[order[ends - 1]]
    best = np.full(count + 1, -1)
    by_area = np.argsort(area, kind="stable")
    best[label[by_area]] = by_area
    if (best[1:] < 0).any():
        raise ValueError(f"label {int(np.flatnonzero(best[1:] < 0)[0]) + 1} has no pixel; labels are 1..n")
    sizes = np.diff(ends, prepend=0)[best[1:]]
    first = (ends - np.diff(ends, prepend=0))[best[1:]]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    index = np.repeat(first - offsets[:-1], sizes) + np.arange(offsets[-1])
    return np.stack([y[index], x[index]], axis=1), offsets


def cracks(
    labels: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixel edges between a label and something else: start corner (E, 2), direction (E,) and label (E,)."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    found = []
    for direction, (neighbour, corner) in enumerate(
        (
            (padded[:-2, 1:-1], (0, 0)),
            (padded[1:-1, 2:], (0, 1)),
            (padded[2:, 1:-1], (1, 1)),
            (padded[1:-1, :-2], (1, 0)),
        )
    ):
        y, x = np.nonzero((inner > 0) & (inner != neighbour))
        at = np.stack([y + corner[0], x + corner[1]], axis=1)
        found.append((at, np.full(len(y), direction), inner[y, x].astype(np.int64)))
    starts, directions, owners = zip(*found, strict=True)
    return np.concatenate(starts), np.concatenate(directions), np.concatenate(owners)


def next_cracks(
    start: NDArray[np.int64],
    direction: NDArray[np.int64],
    owner: NDArray[np.int64],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """For each edge the one that follows; where two do, the right turn, which keeps pieces 4-connected."""
    at = np.full(shape[0] * shape[1] * 4, -1, np.int64)
    at[(start[:, 0] * shape[1] + start[:, 1]) * 4 + direction] = np.arange(len(start))
    end = start + STEPS[direction]
    corner = (end[:, 0] * shape[1] + end[:, 1]) * 4
    following = np.full(len(start), -1, np.int64)
    for turn in (-1, 0, 1):  # left, straight, right: what is written last counts
        candidate = at[corner + (direction + turn) % 4]
        fits = (candidate >= 0) & (owner[candidate] == owner)
        following[fits] = candidate[fits]
    return following


def walk(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges in the order of their rings, each from its first edge on, and the end of each ring in that order.

    Every edge learns how far it is from the end of its ring by jumping twice as far each time (Wyllie 1979).

    >>> walk(np.array([2, 3, 0, 4, 1]))
    (array([0, 2, 1, 3, 4]), array([2, 5]))
    """
    count = len(following)
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    links = csr_array((np.ones(count, bool), following, np.arange(count + 1)), shape=(count, count))
    ring = connected_components(links, directed=False)[1]
    sizes = np.bincount(ring)
    first = np.full(len(sizes), count)
    np.minimum.at(first, ring, np.arange(count))
    is_last = following == first[ring]
    far = np.where(is_last, 0, 1)
    ahead = np.where(is_last, np.arange(count), following)
    for _ in range(int(sizes.max()).bit_length()):
        far, ahead = far + far[ahead], ahead[ahead]
    order = np.lexsort((-far, first[ring]))
    return order, np.cumsum(sizes[np.argsort(first)])


def simplified(
    corners: NDArray[np.integer], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rings through the middles of the edges, with fewer corners and the same area."""
    ring = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    after = np.arange(1, len(corners) + 1)
    after[offsets[1:] - 1] = offsets[:-1]
    middles = (corners + corners[after]) / 2
    y, x = corners[:, 0], corners[:, 1]
    area = np.bincount(ring, (x * y[after] - x[after] * y) / 2)
    polygons = shapely.polygons(shapely.linearrings(middles[:, ::-1], indices=ring))
    rough = shapely.simplify(polygons, TOLERANCE, preserve_topology=True)
    points, index = shapely.get_coordinates(shapely.get_exterior_ring(rough), return_index=True)
    last = np.flatnonzero(np.diff(index, append=-1))
    points, index = np.delete(points, last, axis=0), np.delete(index, last)
    centre = shapely.get_coordinates(shapely.centroid(rough))[index]
    factor = np.sqrt(area / shapely.area(rough))[index, None]
    vertices = (centre + (points - centre) * factor)[:, ::-1].astype(np.float32)
    sizes = np.bincount(index, minlength=len(offsets) - 1)
    return vertices, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def to_shapely(vertices: NDArray[np.floating], offsets: NDArray[np.int64]) -> NDArray[np.object_]:
    """(n,) shapely polygons in (x, y) of ragged rings in (y, x), as they are, valid or not."""
    if len(offsets) < 2:
        return np.zeros(0, object)
    ring = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    flipped = vertices[:, ::-1].astype(np.float64)
    polygons: NDArray[np.object_] = shapely.polygons(shapely.linearrings(flipped, indices=ring))
    return polygons


def from_shapely(
    polygons: NDArray[np.object_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ragged exterior rings (y, x), not closed, and offsets, of (n,) polygons."""
    points, index = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
    last = np.flatnonzero(np.diff(index, append=-1))
    points, index = np.delete(points, last, axis=0), np.delete(index, last)
    sizes = np.bincount(index, minlength=len(polygons))
    return points[:, ::-1], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
