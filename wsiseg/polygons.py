"""From label images to outlines that run along the edges of pixels."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.compiled import compiled

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
    """(V, 2) corners of the largest exterior ring of labels 1..count, a corner a pixel edge; offsets.

    A ring begins at the first pixel of its piece, in reading order, and turns clockwise on the screen.
    """
    padded = np.pad(labels, 1)
    sizes, starts = _largest_rings(padded, count)
    if not sizes.all():
        raise ValueError(f"label {int(np.flatnonzero(sizes == 0)[0]) + 1} has no pixel; labels are 1..n")
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return _corners(padded, starts, offsets), offsets


@compiled
def _turn(padded: NDArray[np.integer], y: int, x: int, direction: int, label: int) -> int:
    """The direction in which the ring of `label` leaves the corner (y, x) of the padded labels.

    Of the two pixels ahead, the right one decides first: where two pieces touch at a corner, the ring stays with its own.
    """
    if direction == 0:
        right, left = padded[y, x], padded[y - 1, x]
    elif direction == 1:
        right, left = padded[y, x - 1], padded[y, x]
    elif direction == 2:
        right, left = padded[y - 1, x - 1], padded[y, x - 1]
    else:
        right, left = padded[y - 1, x], padded[y - 1, x - 1]
    if right != label:
        return (direction + 1) % 4
    return direction if left != label else (direction + 3) % 4


@compiled
def _largest_rings(padded: NDArray[np.integer], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(count,) edges of the ring of each label that encloses most, and (count, 2) its first corner (y, x)."""
    sizes, starts = np.zeros(count, np.int64), np.zeros((count, 2), np.int64)
    areas = np.zeros(count, np.int64)
    seen = np.zeros(padded.shape, np.bool_)
    for top in range(1, padded.shape[0] - 1):
        for left in range(1, padded.shape[1] - 1):
            label = padded[top, left]
            if label <= 0 or padded[top - 1, left] == label or seen[top, left]:
                continue
            y, x, direction, area, size = top, left, 0, 0, 0
            while True:
                if direction == 0:
                    seen[y, x] = True
                # Shoelace, one edge: an exterior ring counts positive, a hole's negative.
                area += x * STEPS[direction, 0] - y * STEPS[direction, 1]
                size += 1
                y, x = y + STEPS[direction, 0], x + STEPS[direction, 1]
                direction = _turn(padded, y, x, direction, label)
                if y == top and x == left and direction == 0:
                    break
            if area > 0 and area >= areas[label - 1]:
                areas[label - 1], sizes[label - 1] = area, size
                starts[label - 1, 0], starts[label - 1, 1] = top, left
    return sizes, starts


@compiled
def _corners(
    padded: NDArray[np.integer], starts: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(V, 2) corners of the rings that begin at `starts`, in the labels without their padding."""
    corners = np.empty((offsets[-1], 2), np.int64)
    for ring in range(len(starts)):
        y, x, direction = starts[ring, 0], starts[ring, 1], 0
        label = padded[y, x]
        for i in range(offsets[ring], offsets[ring + 1]):
            corners[i, 0], corners[i, 1] = y - 1, x - 1
            y, x = y + STEPS[direction, 0], x + STEPS[direction, 1]
            direction = _turn(padded, y, x, direction, label)
    return corners


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
    rough = shapely.simplify(polygons, TOLERANCE, preserve_topology=False)
    # Where a thin outline vanished, or crossed itself and was cut in parts; ten times slower, and needed by next to none.
    lost = shapely.is_empty(rough) | (shapely.get_type_id(rough) != shapely.GeometryType.POLYGON)
    rough[lost] = shapely.simplify(polygons[lost], TOLERANCE, preserve_topology=True)
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
