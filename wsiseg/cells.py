"""Cells around nuclei: every pixel within a distance of some nucleus belongs to the nearest one.

That is QuPath's cell expansion, a watershed of the distance to the nuclei that ends at the distance asked for. What
becomes of a pixel depends on the nuclei around it alone, whatever else is in the picture, and outlines of
neighbours share their corners: cells are the same however a slide is cut, and none covers part of another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiled import compiled
from wsiseg.geometry import Rect
from wsiseg.nuclei import Rings
from wsiseg.polygons import exterior_rings

MPP = 0.5
"""Microns of a pixel in which cells are grown, as in QuPath: their border is no finer known, and has half the corners."""

TOLERANCE = 0.35
"""Pixels that a simplified border may stray. Borders that have no pixel edge in common run 0.7 px apart at least (half a
diagonal, cut at the middles of edges), so that two that stray by less can never cross."""


def painted(rings: Rings, frame: Rect) -> NDArray[np.int32]:
    """(H, W) int32 labels of `frame`: pixels whose centre lies inside ring `i` are `i + 1`, of several the first's."""
    labels = np.zeros(frame.shape, np.int32)
    _paint(labels, np.asarray(rings.vertices, np.float64), rings.offsets, frame.y0, frame.x0)
    return labels


@compiled
def _paint(
    labels: NDArray[np.int32], vertices: NDArray[np.float64], offsets: NDArray[np.int64], y0: int, x0: int
) -> None:
    height, width = labels.shape
    for ring in range(len(offsets) - 1):
        first, last = offsets[ring], offsets[ring + 1]
        if last - first < 3:
            continue
        low, high = vertices[first:last, 0].min(), vertices[first:last, 0].max()
        crossings = np.empty(last - first, np.float64)
        for y in range(max(0, int(np.floor(low)) - y0), min(height, int(np.ceil(high)) - y0 + 1)):
            # In the slide's own coordinates: a pixel is in or out whatever the frame it is seen in.
            centre = y + y0 + 0.5
            count = 0
            for i in range(first, last):
                j = i + 1 if i + 1 < last else first
                above, below = vertices[i, 0], vertices[j, 0]
                if (above <= centre) != (below <= centre):
                    slope = (vertices[j, 1] - vertices[i, 1]) / (below - above)
                    crossings[count] = vertices[i, 1] + (centre - above) * slope
                    count += 1
            row = np.sort(crossings[:count])
            for k in range(0, count - 1, 2):
                begin = max(0, int(np.ceil(row[k] - 0.5)) - x0)
                end = min(width, int(np.ceil(row[k + 1] - 0.5)) - x0)
                for x in range(begin, end):
                    if labels[y, x] == 0:
                        labels[y, x] = ring + 1


def cells(
    rings: Rings, frame: Rect, *, factor: int, distance: float, shape: tuple[int, int]
) -> NDArray[np.int32]:
    """(H, W) int32: cells around nuclei, label `i + 1` for ring `i`, in pixels `factor` times as wide as the frame's.

    The frame begins and ends at multiples of `factor`; `distance` is in its pixels. Nothing grows out of a plan of
    `shape`.
    """
    coarse = Rect(*(side // factor for side in (frame.y0, frame.x0, frame.y1, frame.x1)))
    whole = grown(painted(rings.moved(scale=1 / factor), coarse), distance / factor)
    plan = Rect(0, 0, shape[0] // factor, shape[1] // factor).intersect(coarse)
    clipped = np.zeros_like(whole)
    window = plan.slices((coarse.y0, coarse.x0))
    clipped[window] = whole[window]
    return clipped


def grown(labels: NDArray[np.int32], distance: float) -> NDArray[np.int32]:
    """The labels, and every pixel within `distance` of some label as the nearest one's; of equally near ones, the least.

    Distances are from centre to centre of pixels, exact.

    >>> grown(np.array([[0, 2, 0, 0, 1, 0, 0, 0]], np.int32), 2).tolist()
    [[2, 2, 2, 1, 1, 1, 1, 0]]
    """
    reach = int(np.floor(distance))
    return _spread(labels, reach, distance * distance + 1e-9)


@compiled
def _spread(labels: NDArray[np.int32], reach: int, most: float) -> NDArray[np.int32]:
    height, width = labels.shape
    # Nearest label of the same column: of two equally near ones the least, for the others can never win.
    steps = np.full((height, width), reach + 1, np.int32)
    nearest = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if labels[y, x] != 0:
                steps[y, x], nearest[y, x] = 0, labels[y, x]
            elif y > 0 and steps[y - 1, x] < reach:
                steps[y, x], nearest[y, x] = steps[y - 1, x] + 1, nearest[y - 1, x]
    for y in range(height - 2, -1, -1):
        for x in range(width):
            step = steps[y + 1, x] + 1
            closer = step < steps[y, x] or (step == steps[y, x] and nearest[y + 1, x] < nearest[y, x])
            if closer and step <= reach:
                steps[y, x], nearest[y, x] = step, nearest[y + 1, x]
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            if labels[y, x] != 0:
                continue
            best, winner, aside = most, 0, 0
            while aside <= reach and aside * aside <= best:
                for at in (x - aside, x + aside):
                    if 0 <= at < width and steps[y, at] <= reach:
                        away = aside * aside + steps[y, at] * steps[y, at]
                        if away < best or (away == best and nearest[y, at] < winner):
                            best, winner = away, nearest[y, at]
                aside += 1
            out[y, x] = winner
    return out


def trace_cover(labels: NDArray[np.integer]) -> Rings:
    """Outlines of labels 1..n that touch where the labels touch, and never overlap.

    As in `polygons.trace`, rings run through the middles of pixel edges; but each border between two labels is
    simplified as one line that both share, and areas are not brought back to those of the pixels. Holes are left
    out: a label that another encloses lies in its outline.

    Raises
    ------
    ValueError
        If a label in 1..n has no pixel.
    """
    count = int(labels.max(initial=0))
    if not count:
        return Rings(np.zeros((0, 2), np.float32), np.zeros(1, np.int64))
    corners, offsets = exterior_rings(labels, count)
    middles, kept = _shared(np.pad(labels, 1), corners, offsets)
    sizes = np.add.reduceat(kept, offsets[:-1])
    return Rings(
        middles[kept > 0].astype(np.float32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    )


@compiled
def _shared(
    padded: NDArray[np.integer], corners: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(V, 2) middles of the edges of each ring, and (V,) 1 where one is a corner of the outline."""
    middles = np.empty((len(corners), 2), np.float64)
    kept = np.zeros(len(corners), np.int64)
    for ring in range(len(offsets) - 1):
        first, last = offsets[ring], offsets[ring + 1]
        anchors = 0
        for i in range(first, last):
            j = i + 1 if i + 1 < last else first
            middles[i, 0], middles[i, 1] = (
                (corners[i, 0] + corners[j, 0]) / 2,
                (corners[i, 1] + corners[j, 1]) / 2,
            )
        for i in range(first, last):
            y, x = corners[i, 0] + 1, corners[i, 1] + 1
            a, b, c, d = padded[y - 1, x - 1], padded[y - 1, x], padded[y, x - 1], padded[y, x]
            # Where three labels meet, or two cross, borders end: the edges on both sides of it are in all of them.
            pairs = (a == b) + (b == d) + (d == c) + (c == a)
            if pairs < 2:
                before = i - 1 if i > first else last - 1
                for k in (before, i):
                    if kept[k] == 0:
                        kept[k] = 1
                        anchors += 1
        if anchors == 0:
            kept[first] = 1
        start = first
        while kept[start] == 0:
            start += 1
        if anchors < 2:
            # A line that ends where it begins: its farthest point halves it.
            kept[_farthest(middles, first, last, start)] = 1
        size = last - first
        at = 0
        while at < size:
            end = at + 1
            while end < size and kept[first + (start - first + end) % size] == 0:
                end += 1
            _simplify(middles, kept, first, size, start - first + at, start - first + end)
            at = end
    return middles, kept


@compiled
def _farthest(points: NDArray[np.float64], first: int, last: int, origin: int) -> int:
    best, away = first, -1.0
    for i in range(first, last):
        far = (points[i, 0] - points[origin, 0]) ** 2 + (points[i, 1] - points[origin, 1]) ** 2
        if far > away:
            best, away = i, far
    return best


@compiled
def _simplify(
    points: NDArray[np.float64], kept: NDArray[np.int64], first: int, size: int, begin: int, end: int
) -> None:
    """Mark the points of an open line that Douglas and Peucker (1973) keep; the same from either end."""
    stack = np.empty((size + 2, 2), np.int64)
    stack[0, 0], stack[0, 1] = begin, end
    depth = 1
    while depth > 0:
        depth -= 1
        low, high = stack[depth, 0], stack[depth, 1]
        ay, ax = points[first + low % size, 0], points[first + low % size, 1]
        by, bx = points[first + high % size, 0], points[first + high % size, 1]
        length = (by - ay) ** 2 + (bx - ax) ** 2
        most, where = TOLERANCE * TOLERANCE, -1
        for i in range(low + 1, high):
            k = first + i % size
            y, x = points[k, 0], points[k, 1]
            # Coordinates are halves: every product is exact, and so both neighbours find the same point.
            along = (y - ay) * (by - ay) + (x - ax) * (bx - ax)
            if along <= 0 or length == 0:
                away = (y - ay) ** 2 + (x - ax) ** 2
            elif along >= length:
                away = (y - by) ** 2 + (x - bx) ** 2
            else:
                away = ((y - ay) * (bx - ax) - (x - ax) * (by - ay)) ** 2 / length
            if away > most:
                most, where = away, i
            elif where >= 0 and away == most:
                w = first + where % size
                if y < points[w, 0] or (y == points[w, 0] and x < points[w, 1]):
                    where = i
        if where >= 0:
            kept[first + where % size] = 1
            stack[depth, 0], stack[depth, 1] = low, where
            stack[depth + 1, 0], stack[depth + 1, 1] = where, high
            depth += 2
