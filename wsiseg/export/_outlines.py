"""Outlines as GeoJSON that QuPath reads: valid, without holes, on a grid of quarter pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.compiled import compiled
from wsiseg.nuclei import Rings, together
from wsiseg.polygons import from_shapely, to_shapely

GRID = 0.25
"""Corners lie on this grid, level-0 pixels: exact in QuPath's float32 out to 4 million pixels."""


def geometries(rings: Rings) -> dict[int, str]:
    """GeoJSON of each outline that comes to something, by its number, in their order."""
    solid = readable(rings)
    some = np.flatnonzero(np.diff(solid.offsets))
    texts = coordinates(solid.take(some))
    return {
        i: f'{{"type":"Polygon","coordinates":{text}}}' for i, text in zip(some.tolist(), texts, strict=True)
    }


def readable(rings: Rings) -> Rings:
    """As many outlines on the grid, each the exterior of a valid polygon; without corners where nothing is left."""
    # Where rounded corners are a valid ring, nothing is left to be done; the others need the slow way.
    rounded = on_grid(rings)
    simple = np.diff(rounded.offsets) >= 3
    some = rounded.take(np.flatnonzero(simple))
    simple[simple] = shapely.is_valid(to_shapely(some.vertices, some.offsets))
    kept, rest = np.flatnonzero(simple), np.flatnonzero(~simple)
    crossed = rings.take(rest)
    corners, offsets = from_shapely(solid_polygons(to_shapely(crossed.vertices, crossed.offsets)))
    mended = Rings(corners.astype(np.float32), offsets)
    order = np.argsort(np.concatenate([kept, rest]))
    return together([rounded.take(kept), mended]).take(order)


def on_grid(rings: Rings) -> Rings:
    """Corners on the grid, those that come to lie on the one after them left out."""
    corners = np.round(rings.vertices / GRID) * GRID
    following = np.arange(1, len(corners) + 1)
    ends = rings.offsets[1:]
    held = ends > rings.offsets[:-1]
    following[ends[held] - 1] = rings.offsets[:-1][held]
    kept = (corners != corners[following]).any(1)
    offsets = np.concatenate([[0], np.cumsum(kept)])[rings.offsets]
    return Rings(corners[kept], offsets)


def solid_polygons(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """(n,) polygons without holes on the grid; empty where nothing is left.

    Made valid, put on the grid, the largest polygon taken: none that came out of this in that order was
    ever refused. Holes are dropped before the grid is, since it can make a hole touch its ring.
    """
    whole = largest_polygons(shapely.make_valid(polygons))
    solid = shapely.polygons(shapely.get_exterior_ring(whole))
    made = shapely.set_precision(shapely.make_valid(solid), GRID)
    return largest_polygons(made, exterior=True)


def largest_polygons(shapes: NDArray[np.object_], *, exterior: bool = False) -> NDArray[np.object_]:
    """The largest polygon of each geometry; an empty one where there is none."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    deeper, within = shapely.get_parts(parts, return_index=True)  # a collection may hold a multipolygon
    owner = owner[within]
    is_polygon = shapely.get_type_id(deeper) == shapely.GeometryType.POLYGON
    area = np.where(is_polygon, shapely.area(deeper), 0)
    result = np.full(len(shapes), shapely.Polygon(), object)
    order = np.argsort(area, kind="stable")
    order = order[area[order] > 0]
    result[owner[order]] = deeper[order]
    if exterior:
        filled = ~shapely.is_empty(result)
        result[filled] = shapely.polygons(shapely.get_exterior_ring(result[filled]))
    return result


def coordinates(rings: Rings) -> list[str]:
    """GeoJSON's coordinates of polygons on the grid: [[[x, y], ...]], closed, in as few characters as can be."""
    if not len(rings):
        return []
    quarters = np.rint(rings.vertices[:, ::-1] / GRID).astype(np.int64)
    digits = len(str(int(np.abs(quarters).max()))) + len("-.75")
    corners = len(quarters) + len(rings)
    text = np.empty(corners * (2 * digits + len("[,],")) + len(rings) * len("[[]]"), np.uint8)
    ends = np.empty(len(rings), np.int64)
    _write(quarters, rings.offsets, text, ends)
    whole = text[: ends[-1]].tobytes().decode("ascii")
    return [whole[start:end] for start, end in pairwise([0, *ends.tolist()])]


MINUS, POINT, COMMA, OPEN, CLOSE, ZERO = b"-.,[]0"


@compiled
def _write(
    quarters: NDArray[np.int64], offsets: NDArray[np.int64], text: NDArray[np.uint8], ends: NDArray[np.int64]
) -> None:
    """Fill `text` with the coordinates of one ring after another, and `ends` with where each is at its end."""
    at = 0
    for ring in range(len(ends)):
        first, last = offsets[ring], offsets[ring + 1]
        text[at], text[at + 1] = OPEN, OPEN
        at += 2
        for i in range(first, last + 1):
            corner = i if i < last else first
            if i > first:
                text[at] = COMMA
                at += 1
            text[at] = OPEN
            at = _write_number(text, at + 1, quarters[corner, 0])
            text[at] = COMMA
            at = _write_number(text, at + 1, quarters[corner, 1])
            text[at] = CLOSE
            at += 1
        text[at], text[at + 1] = CLOSE, CLOSE
        at += 2
        ends[ring] = at


@compiled
def _write_number(text: NDArray[np.uint8], at: int, quarters: int) -> int:
    """Write a number of quarters as a decimal number; returns where it ends."""
    if quarters < 0:
        text[at] = MINUS
        at, quarters = at + 1, -quarters
    whole, rest = quarters // 4, quarters % 4
    end = at + 1
    above = whole // 10
    while above:
        end, above = end + 1, above // 10
    for i in range(end - 1, at - 1, -1):
        text[i] = ZERO + whole % 10
        whole //= 10
    if rest:
        text[end] = POINT
        text[end + 1] = ZERO + (25 * rest) // 10
        end += 2
        if rest != 2:
            text[end] = ZERO + 5
            end += 1
    return end
