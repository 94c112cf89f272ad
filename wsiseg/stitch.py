"""Where tiles overlap: one nucleus, one polygon.

Each tile claims the nuclei that are its own, by a little more than its core; `resolve` decides between the
claims. What travels is 16 numbers a nucleus, its mean embedding, never a map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsiseg.contest import decide, redraw
from wsiseg.geometry import Rect
from wsiseg.nuclei import NucleusTable, concatenate
from wsiseg.polygons import to_shapely
from wsiseg.tiling import Tile, TilePlan

MARGIN = 8
"""Pixels by which a core is grown: two tiles may disagree about a centroid by a pixel, and nobody may lose it."""


def computed_cores(plan: TilePlan) -> NDArray[np.bool_]:
    """(rows, columns) bool: which cores of the grid have a tile."""
    grid = np.zeros(plan.grid, bool)
    grid.reshape(-1)[[tile.index for tile in plan.tiles]] = True
    return grid


def claim(
    nuclei: NucleusTable,
    tile: Tile,
    *,
    shape: tuple[int, int],
    computed: NDArray[np.bool_],
    margin: int = MARGIN,
) -> NucleusTable:
    """The nuclei of one tile that may be its own.

    Their centroid lies in the core, grown by `margin` pixels, or in a core that no tile computes.

    Parameters
    ----------
    nuclei
        In plan pixels.
    shape : (H, W)
        Of the plan: what lies outside is nobody's.
    computed : (rows, columns) bool
        Which cores have a tile.
    """
    core = tile.core.height
    cell = np.floor(nuclei.centroid / core).astype(np.int64).clip(0, np.array(computed.shape) - 1)
    orphan = ~computed[cell[:, 0], cell[:, 1]]
    own = tile.core.grow(margin).contains(nuclei.centroid) | orphan
    return nuclei.take(own & Rect(0, 0, *shape).contains(nuclei.centroid))


def resolve(
    nuclei: NucleusTable, plan: TilePlan, *, bandwidth: float = 1.5, scale: float = 0.15
) -> NucleusTable:
    """One nucleus where several tiles claimed it.

    Claims are taken in the order of their centroid's depth inside their own core, deepest first; then of
    their tile; then of their row. Against the nuclei accepted before it a claim is

    - united with one, if one of both is cut by the border of what its tile looks at, or they overlap by at most `contest.SHARE`
      of the smaller, and their mean embeddings lie within the bandwidth;
    - dropped, if they overlap by more, even where it could be united with another one;
    - else left what the other one does not cover, and dropped if that is less than half of it.

    A nucleus that took in a piece meets later claims with both outlines; the piece brings along only what
    no other accepted nucleus covers.

    Parameters
    ----------
    nuclei
        Claims of all tiles, in any order of tiles, plan pixels; with `embedding`, or without: then nothing
        is united.
    scale
        Embedding units per plan pixel.

    Returns
    -------
    the nuclei in the order of their tiles, then of their rows; `embedding` is None
    """
    nuclei = nuclei.take(np.argsort(nuclei.tile, kind="stable"))
    return concatenate(list(resolve_rows([nuclei], plan, bandwidth=bandwidth, scale=scale)) or [nuclei])


def by_grid_row(tables: Iterable[NucleusTable], plan: TilePlan) -> Iterator[NucleusTable]:
    """Claims in the order of the plan, again as one table a row of the grid; rows without claims are left out."""
    row, parts = -1, list[NucleusTable]()
    for table in tables:
        rows = table.tile // plan.grid[1]
        for number in np.unique(rows).tolist():
            if parts and number != row:
                yield concatenate(parts)
                parts = []
            row = number
            parts.append(table.take(rows == number))
    if parts:
        yield concatenate(parts)


def resolve_rows(
    rows: Iterable[NucleusTable], plan: TilePlan, *, bandwidth: float = 1.5, scale: float = 0.15
) -> Iterator[NucleusTable]:
    """The nuclei of `resolve`, in its order, while no more than a few rows of the grid are held.

    Claims that overlap, and those that overlap them in turn, are decided together once no later row can add to
    them: whatever lies above what the next row's tiles look at is complete.

    Parameters
    ----------
    rows
        Claims of one row of the grid after another, or of several together, each in the order of its tiles.
    """
    waiting: _Waiting | None = None
    for table, following in with_next(rows):
        waiting = _Waiting(table) if waiting is None else waiting.and_then(table)
        # Outlines of later rows lie in what their tiles look at.
        border = np.inf
        if following is not None and len(following):
            border = int(following.tile.min()) // plan.grid[1] * plan.core - plan.reach
        waiting.settle(plan, border, bandwidth=bandwidth, scale=scale)
        finished = waiting.take_finished(plan)
        if len(finished):
            yield finished


def with_next(rows: Iterable[NucleusTable]) -> Iterator[tuple[NucleusTable, NucleusTable | None]]:
    """Every table and the one after it; None after the last."""
    before: NucleusTable | None = None
    for table in rows:
        if before is not None:
            yield before, table
        before = table
    if before is not None:
        yield before, None


class _Waiting:
    """Claims in the order of their tiles, of which some are decided and none is given away yet."""

    def __init__(self, claims: NucleusTable) -> None:
        self.claims = claims
        self.settled = np.zeros(len(claims), bool)
        self.keep = np.ones(len(claims), bool)
        self.changed: dict[int, shapely.Geometry] = {}

    def and_then(self, claims: NucleusTable) -> _Waiting:
        """These, and claims of later tiles."""
        both = _Waiting(concatenate([self.claims, claims]))
        both.settled[: len(self.settled)] = self.settled
        both.keep[: len(self.keep)] = self.keep
        both.changed = self.changed
        return both

    def settle(self, plan: TilePlan, border: float, *, bandwidth: float, scale: float) -> None:
        """Decide between claims that overlap, where no outline below `border` can join them any more."""
        cores = core_of(self.claims, plan)
        bounds = self.claims.bounds()
        near = np.flatnonzero(~self.settled & near_seams(bounds, cores, plan.reach))
        part, cores, bounds = self.claims.take(near), cores[near], bounds[near]
        polygons = shapely.make_valid(to_shapely(part.vertices, part.offsets))
        first, second = overlapping_tiles(polygons, part.tile)
        open_ones = _together(bounds[:, 2] >= border, first, second)
        self.settled[:] = True
        self.settled[near[open_ones]] = False
        decidable = ~open_ones[first]
        first, second = first[decidable], second[decidable]
        if not len(first):
            return
        depth = depth_in(part.centroid, cores)
        order = np.lexsort((np.arange(len(near)), part.tile, -depth))
        alike = similar(part, first, second, bandwidth=bandwidth, scale=scale)
        cut = touches_border(bounds, cores, plan.reach)
        dropped, redrawn = decide(polygons, order, first, second, alike, cut)
        self.keep[near[dropped]] = False
        self.changed |= {int(near[i]): polygon for i, polygon in redrawn.items()}

    def take_finished(self, plan: TilePlan) -> NucleusTable:
        """The nuclei before the first row of the grid that has a claim which is not decided; they are waiting no more."""
        row = self.claims.tile // plan.grid[1]
        count = len(row) if self.settled.all() else int(np.argmax(row == row[~self.settled].min()))
        done = {i: polygon for i, polygon in self.changed.items() if i < count}
        given = self.claims.take(np.arange(count))
        given = replace(redraw(given, done), embedding=None).take(self.keep[:count])
        self.claims = self.claims.take(np.arange(count, len(row)))
        self.settled, self.keep = self.settled[count:], self.keep[count:]
        self.changed = {i - count: polygon for i, polygon in self.changed.items() if i >= count}
        return given


def _together(
    marked: NDArray[np.bool_], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) which of N are marked, or joined to a marked one by pairs, however many are between."""
    count = len(marked)
    if not count:
        return marked
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    group = connected_components(links, directed=False)[1]
    return np.isin(group, group[marked])


def core_of(nuclei: NucleusTable, plan: TilePlan) -> NDArray[np.int64]:
    """(N, 4) y0, x0, y1, x1 of the core of each nucleus's tile."""
    row, column = np.divmod(nuclei.tile.astype(np.int64), plan.grid[1])
    low = np.stack([row, column], axis=1) * plan.core
    return np.concatenate([low, low + plan.core], axis=1)


def depth_in(points: NDArray[np.floating], cores: NDArray[np.int64]) -> NDArray[np.floating]:
    """(N,) distance of each point to the nearest edge of its own core; negative outside."""
    depth: NDArray[np.floating] = np.minimum(points - cores[:, :2], cores[:, 2:] - points).min(1)
    return depth


def near_seams(bounds: NDArray[np.floating], cores: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """Which nuclei could overlap one of another tile: no tile looks further than `reach` into another's core."""
    inset = np.minimum(bounds[:, :2] - cores[:, :2], cores[:, 2:] - bounds[:, 2:]).min(1, initial=np.inf)
    return np.asarray(inset <= reach)


def overlapping_tiles(
    polygons: NDArray[np.object_], tile: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of polygons of different tiles that intersect, each pair once."""
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    once = (first < second) & (tile[first] != tile[second])
    return first[once], second[once]


def similar(
    nuclei: NucleusTable,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    bandwidth: float,
    scale: float,
) -> NDArray[np.bool_]:
    """Which pairs have mean embeddings within the bandwidth; none where there are no embeddings."""
    if nuclei.embedding is None:
        return np.zeros(len(first), bool)
    apart = nuclei.embedding[first].astype(np.float64) - nuclei.embedding[second]
    # Differences of positions are taken before they are scaled: far out in a slide that keeps them exact.
    apart[:, :2] += scale * (nuclei.centroid[first] - nuclei.centroid[second])
    near: NDArray[np.bool_] = np.linalg.norm(apart, axis=1) <= bandwidth
    return near


def touches_border(bounds: NDArray[np.floating], cores: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """Which nuclei reach the border of what their tile looks at: there, they are cut."""
    low, high = cores[:, :2] - reach + 1, cores[:, 2:] + reach - 1
    return np.asarray(((bounds[:, :2] < low) | (bounds[:, 2:] > high)).any(1))
