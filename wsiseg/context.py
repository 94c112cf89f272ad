"""What lies around a nucleus: the distance to the nearest other one, and how dense they are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsiseg.nuclei import NucleusTable, concatenate
from wsiseg.regions import Region
from wsiseg.stitch import with_next
from wsiseg.tiling import TilePlan

NEAREST_UM = 250.0
"""How far a nearest neighbour is looked for: what is lonelier has none, and rows of the grid need not wait for it."""

RADIUS_UM = 50.0
"""Of the disc in which nuclei are counted."""

PIECE = 8
"""Radii of a side of the squares that a region is cut into: few corners each, whatever the region."""

WIDE = 4
"""Reaches that the tiles are wide, at least, whose neighbours are looked for at once."""

NAMES = ("Nearest neighbor distance µm", f"Nuclei per mm^2 within {RADIUS_UM:g} µm")


def with_neighbours(
    rows: Iterable[NucleusTable], plan: TilePlan, reach: float
) -> Iterator[tuple[NucleusTable, NucleusTable]]:
    """Every table, some tiles at a time, and with these, first of all, themselves and all nuclei within `reach` pixels.

    A table is given once no later one can add a neighbour; no more than the rows within reach are held. A row of a wide
    slide is many tiles: what is made of its nuclei is made of a few tiles' at a time.

    Parameters
    ----------
    rows
        Nuclei in the order of the plan, plan pixels, as `stitch.resolve_rows` gives them.
    """
    before: list[NucleusTable] = []
    waiting: list[NucleusTable] = []
    for table, following in with_next(rows):
        waiting.append(table)
        border = np.inf
        if following is not None:
            # A nucleus of a later row was seen no higher than this, and a piece it was united with not much higher.
            border = int(following.tile.min()) // plan.grid[1] * plan.core - 2 * plan.reach
        while waiting and _bottom(waiting[0]) + reach <= border:
            first, *waiting = waiting
            yield from _in_parts(first, [*before, *waiting], reach, tiles=ceil(WIDE * reach / plan.core))
            before.append(first)
        needed = min([border, *(_top(t) for t in waiting)]) - reach
        before = [t.take(t.bounds()[:, 2] >= needed) for t in before if _bottom(t) >= needed]


def _in_parts(
    table: NucleusTable, others: Sequence[NucleusTable], reach: float, *, tiles: int
) -> Iterator[tuple[NucleusTable, NucleusTable]]:
    """So many tiles of a table after another, each with what comes within reach of their bounds."""
    every = [(each, each.bounds()) for each in (table, *others)]
    starts = np.flatnonzero(np.diff(table.tile, prepend=-1))[::tiles].tolist()
    for start, stop in pairwise([*starts, len(table)]):
        part = np.arange(start, stop)
        box = every[0][1][part]
        low, high = box[:, :2].min(0) - reach, box[:, 2:].max(0) + reach
        within = [((bounds[:, 2:] >= low) & (bounds[:, :2] <= high)).all(1) for _, bounds in every]
        within[0][part] = False
        own = table.take(part)
        near = (each.take(inside) for (each, _), inside in zip(every, within, strict=True))
        yield own, concatenate([own, *near])


def _top(table: NucleusTable) -> float:
    return float(table.vertices[:, 0].min(initial=np.inf))


def _bottom(table: NucleusTable) -> float:
    return float(table.vertices[:, 0].max(initial=-np.inf))


def reach_px(mpp: float) -> float:
    """Pixels of `mpp` microns within which neighbours matter."""
    return max(NEAREST_UM, RADIUS_UM) / mpp


def context_columns(
    points: NDArray[np.floating],
    others: NDArray[np.floating],
    counted: NDArray[np.floating],
    surface: Surface,
    *,
    mpp: float,
) -> dict[str, NDArray[np.float32]]:
    """Context of nuclei with centroids `points`, pixels of `mpp` microns.

    Parameters
    ----------
    points : (n, 2)
        (y, x).
    others : (m, 2)
        All nuclei within `NEAREST_UM` of these, and these.
    counted : (k, 2)
        Those of them that lie in `surface`.
    surface
        Where nuclei were looked for: what of a disc lies outside holds none and is not counted as empty.

    Returns
    -------
    the distance to the nearest other centroid, NaN beyond `NEAREST_UM`; and the nuclei of the disc of
    `RADIUS_UM` about it, itself included, per square millimetre of its surface
    """
    nearest = np.full(len(points), np.inf)
    if len(others) > 1:
        nearest = np.asarray(cKDTree(others).query(points, k=2)[0])[:, 1] * mpp
    nearest = np.where(nearest <= NEAREST_UM, nearest, np.nan)
    number = np.zeros(len(points))
    if len(counted) and len(points):
        number = cKDTree(counted).query_ball_point(points, RADIUS_UM / mpp, return_length=True)
    area = surface.within(points, RADIUS_UM / mpp) * mpp**2 / 1e6
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(area > 0, number / area, np.nan)
    return {
        name: np.asarray(values, np.float32) for name, values in zip(NAMES, (nearest, density), strict=True)
    }


class Surface:
    """An area that discs are intersected with: the plan, or the part of it that regions cover.

    Parameters
    ----------
    shape : (H, W)     of the plan
    regions            of which any may hold a nucleus; all of the plan, where there are none
    scale              level-0 pixels, which regions are in, per plan pixel
    step               side of the squares it is cut into, plan pixels
    """

    def __init__(
        self, shape: tuple[int, int], regions: Sequence[Region], *, scale: float, step: float
    ) -> None:
        whole = shapely.box(0, 0, shape[1], shape[0])
        drawn = [
            shapely.make_valid(
                shapely.Polygon(r.exterior[:, ::-1] / scale, [h[:, ::-1] / scale for h in r.holes])
            )
            for r in regions
        ]
        area = polygonal(shapely.intersection(shapely.union_all(drawn), whole)) if drawn else whole
        self.border = shapely.boundary(area)
        shapely.prepare(self.border)
        self.pieces = shapely.STRtree(squares(area, step))

    def within(self, points: NDArray[np.floating], radius: float) -> NDArray[np.float64]:
        """(n,) area of the disc about each of `points` (y, x), which lie inside, that lies inside too."""
        result = np.full(len(points), np.pi * radius**2)
        centres = shapely.points(points[:, ::-1])
        cut = np.flatnonzero(shapely.dwithin(self.border, centres, radius))
        discs = shapely.buffer(centres[cut], radius, quad_segs=16)
        which, piece = self.pieces.query(discs, predicate="intersects")
        common = shapely.area(shapely.intersection(discs[which], self.pieces.geometries[piece]))
        # A disc drawn with corners is a little smaller than a round one.
        result[cut] *= np.bincount(which, common, len(cut)) / shapely.area(discs)
        return result


def polygonal(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a geometry, without its loose lines and points."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])


def squares(area: shapely.Geometry, step: float) -> NDArray[np.object_]:
    """The area, cut into squares of a grid; those it does not meet are left out."""
    if area.is_empty:
        return np.zeros(0, object)
    x0, y0, x1, y1 = area.bounds
    found = []
    for top in np.arange(y0, y1, step):
        strip = shapely.intersection(area, shapely.box(x0, top, x1, top + step))
        if strip.is_empty:
            continue
        left, _, right, _ = strip.bounds
        lefts = np.arange(left, right, step)
        found.append(shapely.intersection(strip, shapely.box(lefts, top, lefts + step, top + step)))
    pieces = np.concatenate([np.zeros(0, object), *found])
    return pieces[~shapely.is_empty(pieces)]
