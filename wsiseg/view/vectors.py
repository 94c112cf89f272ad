"""Nuclei in tiles of vectors: outlines near, discs further off, their density from afar.

A tile of step k is `SIDE << k` level-0 pixels a side and holds the nuclei whose centroid lies in it. Nuclei are
sorted along a Z-order curve of the tiles of step 0 (Morton 1966), so that every tile of every step is one run.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import from_shapely, to_shapely
from wsiseg.view.ears import triangles

SIDE = 512
"""Level-0 pixels of a tile of step 0: some hundred nuclei."""

UNITS = 16
"""Coordinates in a tile are 16ths of a pixel of its step; those of step 0 lie on a grid of a quarter."""

CELLS = 256
"""Cells a side that a tile of densities has."""

OUTLINE_PX = 5.0
"""Pixels of a step that the median nucleus must measure to be drawn as an outline."""

DISC_PX = 2.5
"""Likewise, as a disc; below, single nuclei say less than their density, and there are too many of them."""

STRAY = 0.3
"""Pixels of a step that a simplified outline may stray from the true one."""

RADIUS_UNITS = 8
"""Radii of discs are eighths of a pixel of their step."""

OUTLINES, DISCS, DENSITY = 0, 1, 2

CORNER = np.dtype([("x", "<i2"), ("y", "<i2"), ("score", "<u2"), ("label", "u1"), ("mark", "u1")])
"""A corner on its way to the page. `score` is 0 to 65,535; `mark` is 1 on the last corner of a ring, which
repeats its first, and the radius of a disc."""

KEPT = 256
"""Tiles that are kept as they are sent."""

REACH = 1
"""Tiles of step 0 around a place in which a nucleus that covers it may have its centroid."""


class VectorTiles:
    """The nuclei of a result, sorted and cut into tiles; they may be asked for from several threads.

    Attributes
    ----------
    nuclei : NucleusTable    level-0 pixels, along the curve
    steps : int              how many there are; the last is one tile
    diameter : float         of the median nucleus, level-0 pixels; 1 where there are none
    """

    def __init__(self, nuclei: NucleusTable, shape: tuple[int, int]) -> None:
        cells = (nuclei.centroid // SIDE).clip(0).astype(np.int64)
        keys = z_order(cells[:, 0], cells[:, 1])
        order = np.argsort(keys, kind="stable")
        self.nuclei = nuclei.take(order)
        self._keys = keys[order]
        self._bounds = self.nuclei.bounds()
        self.steps = 1 + max(0, math.ceil(math.log2(max(shape) / SIDE)))
        self.diameter = float(np.sqrt(4 / np.pi * np.median(nuclei.area))) if len(nuclei) else 1.0
        self.tile = lru_cache(KEPT)(self._tile)

    def kind(self, step: int) -> int:
        """How nuclei are shown at a step: `OUTLINES`, `DISCS` or `DENSITY`."""
        seen = self.diameter / 2**step
        return OUTLINES if seen >= OUTLINE_PX or step == 0 else DISCS if seen >= DISC_PX else DENSITY

    def run(self, step: int, row: int, column: int) -> slice:
        """The nuclei of a tile."""
        key = int(z_order(np.array([row]), np.array([column]))[0])
        ends = np.array([key << 2 * step, (key + 1) << 2 * step], np.uint64)
        start, stop = np.searchsorted(self._keys, ends)
        return slice(int(start), int(stop))

    def _tile(self, step: int, row: int, column: int) -> bytes:
        """A tile as it travels, little-endian: four uint32 (kind, nuclei, rows, triangles), and what the kind has.

        - outlines: rows of `CORNER`, and triangles of three rows each, uint32
        - discs: rows of `CORNER`, one a nucleus
        - density: a uint32 a nucleus, cell << 16 | label << 8 | score of 0 to 255
        """
        index = np.arange(*self.run(step, row, column).indices(len(self.nuclei)))
        part = self.nuclei.take(index)
        origin = np.array([row, column]) * float(SIDE << step)
        kind = self.kind(step)
        fill = np.zeros((0, 3), "<u4")
        rows: NDArray[Any]
        if kind == OUTLINES:
            rows, fill = outlines(part, origin, step)
        elif kind == DISCS:
            rows = discs(part, origin, step)
        else:
            rows = cells(part, origin, step)
        head = np.array([kind, len(part), len(rows), len(fill)], "<u4")
        return head.tobytes() + rows.tobytes() + fill.tobytes()

    def at(self, y: float, x: float) -> int | None:
        """The nucleus whose outline holds a place of level 0, the smallest of several; None for none."""
        row, column = int(y // SIDE), int(x // SIDE)
        near = [
            np.arange(*self.run(0, i, j).indices(len(self.nuclei)))
            for i in range(max(0, row - REACH), row + REACH + 1)
            for j in range(max(0, column - REACH), column + REACH + 1)
        ]
        index = np.concatenate([np.zeros(0, np.int64), *near])
        y0, x0, y1, x1 = self._bounds[index].T
        index = index[(y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)]
        part = self.nuclei.take(index)
        index = index[shapely.contains_xy(to_shapely(part.vertices, part.offsets), x, y)]
        return int(index[np.argmin(self.nuclei.area[index])]) if len(index) else None


def z_order(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Place of each cell on a Z-order curve: bits of its row and its column in turn.

    >>> z_order(np.array([0, 0, 1, 1, 0]), np.array([0, 1, 0, 1, 2])).tolist()
    [0, 1, 2, 3, 4]
    """

    def apart(n: NDArray[np.int64]) -> NDArray[np.uint64]:
        bits = n.astype(np.uint64)
        for shift, mask in (
            (16, 0x0000FFFF0000FFFF),
            (8, 0x00FF00FF00FF00FF),
            (4, 0x0F0F0F0F0F0F0F0F),
            (2, 0x3333333333333333),
            (1, 0x5555555555555555),
        ):
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        return bits

    return apart(rows) << np.uint64(1) | apart(columns)


def outlines(
    nuclei: NucleusTable, origin: NDArray[np.float64], step: int
) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
    """Closed rings, a row of `CORNER` a corner, and (T, 3) triangles that fill them.

    From step 1 on they are simplified, to what can still be told apart.
    """
    vertices, offsets = nuclei.vertices.astype(np.float64), nuclei.offsets
    if step and len(nuclei):
        vertices, offsets = simplified(vertices, offsets, STRAY * 2**step)
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(nuclei)), sizes + 1)
    # Of a ring of corners 0, 1, 2 the rows are 0, 1, 2, 0.
    ends = offsets[1:] + np.arange(len(nuclei))
    source = np.arange(len(owner)) - owner
    source[ends] = offsets[:-1]
    rows = corners(vertices[source], nuclei, owner, origin, step)
    rows["mark"][ends] = 1
    fill = triangles(np.ascontiguousarray(vertices), offsets)
    ring = np.repeat(np.arange(len(nuclei)), sizes - 2)
    return rows, (fill + ring[:, None]).astype("<u4")


def simplified(
    vertices: NDArray[np.float64], offsets: NDArray[np.int64], stray: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rings with fewer corners, none of which vanishes."""
    polygons = to_shapely(vertices, offsets)
    rough = shapely.simplify(polygons, stray, preserve_topology=False)
    # The fast way may lose a thin ring, or cut it in parts.
    lost = shapely.is_empty(rough) | (shapely.get_type_id(rough) != shapely.GeometryType.POLYGON)
    rough[lost] = shapely.simplify(polygons[lost], stray, preserve_topology=True)
    rings = from_shapely(rough)
    return rings if (np.diff(rings[1]) >= 3).all() else (vertices, offsets)


def discs(nuclei: NucleusTable, origin: NDArray[np.float64], step: int) -> NDArray[np.void]:
    """A row of `CORNER` a nucleus: its centroid, and the radius of a disc of its area."""
    rows = corners(nuclei.centroid, nuclei, np.arange(len(nuclei)), origin, step)
    radius = np.sqrt(nuclei.area / np.pi) / 2**step
    rows["mark"] = np.rint(radius * RADIUS_UNITS).clip(1, 255)
    return rows


def corners(
    places: NDArray[np.float64],
    nuclei: NucleusTable,
    owner: NDArray[np.int64],
    origin: NDArray[np.float64],
    step: int,
) -> NDArray[np.void]:
    """Rows of `CORNER` at `places` (y, x), each with the score and the class of its nucleus."""
    rows = np.zeros(len(places), CORNER)
    within = np.rint((places - origin) * (UNITS / 2**step)).clip(-32768, 32767)
    rows["y"], rows["x"] = within[:, 0], within[:, 1]
    rows["score"] = np.rint(known(nuclei.score) * 65535)[owner]
    rows["label"] = nuclei.label[owner]
    return rows


def cells(nuclei: NucleusTable, origin: NDArray[np.float64], step: int) -> NDArray[np.uint32]:
    """A number a nucleus: cell << 16 | label << 8 | score of 0 to 255."""
    within = ((nuclei.centroid - origin) * (CELLS / (SIDE << step))).astype(np.int64).clip(0, CELLS - 1)
    score = np.floor(known(nuclei.score) * 255).astype(np.int64)
    cell = within[:, 0] * CELLS + within[:, 1]
    return (cell << 16 | nuclei.label.astype(np.int64) << 8 | score).astype("<u4")


def known(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores within 0 and 1; those that are not known pass every filter."""
    return np.nan_to_num(score, nan=1.0).clip(0, 1)
