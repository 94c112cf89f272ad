"""Outlines cut into triangles, which is how they are filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiled import compiled


@compiled
def triangles(vertices: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangles of every ring, K - 2 of each, by cutting off ears (Meisters 1975).

    Parameters
    ----------
    vertices : (V, 2) float64    corners of all rings, one ring after another, not closed, in either direction
    offsets : (N + 1,) int64     ring i is `vertices[offsets[i]:offsets[i + 1]]`, of at least 3 corners

    Returns
    -------
    (V - 2 N, 3) int64    rows of `vertices`; those of a ring that does not cross itself cover it once

    Where a ring crosses itself and no ear is left, any corner is cut off.
    """
    out = np.empty((len(vertices) - 2 * (len(offsets) - 1), 3), np.int64)
    count = 0
    for i in range(len(offsets) - 1):
        left = list(range(offsets[i], offsets[i + 1]))
        turn = _turn(vertices, offsets[i], offsets[i + 1])
        at, refused = 0, 0
        while len(left) > 3:
            at %= len(left)
            a, b, c = left[at - 1], left[at], left[(at + 1) % len(left)]
            if refused < len(left) and not _is_ear(vertices, left, a, b, c, turn):
                at, refused = at + 1, refused + 1
                continue
            out[count, 0], out[count, 1], out[count, 2] = a, b, c
            count += 1
            left.pop(at)
            refused = 0
            # The corner after next: fans from a single corner would be slivers.
            at += 1
        out[count, 0], out[count, 1], out[count, 2] = left[0], left[1], left[2]
        count += 1
    return out


@compiled
def _turn(vertices: NDArray[np.float64], start: int, stop: int) -> float:
    """1 or -1, by the direction a ring runs in."""
    area = 0.0
    for i in range(start, stop):
        after = i + 1 if i + 1 < stop else start
        area += vertices[i, 0] * vertices[after, 1] - vertices[after, 0] * vertices[i, 1]
    return 1.0 if area >= 0 else -1.0


@compiled
def _cross(vertices: NDArray[np.float64], a: int, b: int, c: int) -> float:
    """Twice the signed area of a triangle."""
    return (vertices[b, 0] - vertices[a, 0]) * (vertices[c, 1] - vertices[a, 1]) - (
        vertices[c, 0] - vertices[a, 0]
    ) * (vertices[b, 1] - vertices[a, 1])


@compiled
def _is_ear(vertices: NDArray[np.float64], left: list[int], a: int, b: int, c: int, turn: float) -> bool:
    """Whether the corner `b` sticks out, and nothing of what is left lies within its triangle."""
    if turn * _cross(vertices, a, b, c) < 0:
        return False
    for p in left:
        if p in (a, b, c) or _same(vertices, p, a) or _same(vertices, p, b) or _same(vertices, p, c):
            continue
        inside = (
            turn * _cross(vertices, a, b, p) >= 0
            and turn * _cross(vertices, b, c, p) >= 0
            and turn * _cross(vertices, c, a, p) >= 0
        )
        if inside:
            return False
    return True


@compiled
def _same(vertices: NDArray[np.float64], p: int, q: int) -> bool:
    """Whether two corners lie at one place."""
    return vertices[p, 0] == vertices[q, 0] and vertices[p, 1] == vertices[q, 1]
