"""Who gets what where claims overlap: decisions between polygons that several tiles drew of the same place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.nuclei import NucleusTable, concatenate
from wsiseg.polygons import from_shapely

SHARE = 0.3
"""Two polygons are one nucleus if they share more than this of the smaller."""


def decide(
    polygons: NDArray[np.object_],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    alike: NDArray[np.bool_],
    cut: NDArray[np.bool_],
) -> tuple[list[int], dict[int, shapely.Geometry]]:
    """Indices that are dropped, and new polygons of others; see `resolve` for the rules."""
    neighbours: dict[int, list[tuple[int, bool]]] = {}
    for a, b, near in zip(first.tolist(), second.tolist(), alike.tolist(), strict=True):
        neighbours.setdefault(a, []).append((b, near))
        neighbours.setdefault(b, []).append((a, near))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    shapes: dict[int, shapely.Geometry] = {}
    owner: dict[int, int] = {}
    changed: set[int] = set()
    for i in (int(i) for i in order if int(i) in neighbours):
        rivals = rivals_of(neighbours[i], owner, cut, own_cut=bool(cut[i]))
        ranked = sorted(rivals, key=lambda j: rank[j])
        fate, mine = meet(polygons[i], i, [(j, shapes[j], *rivals[j]) for j in ranked])
        if fate is None:
            continue
        owner[i] = fate
        shapes[fate] = mine if fate == i else largest(shapely.union(shapes[fate], mine))
        if fate != i or mine is not polygons[i]:
            changed.add(fate)
    dropped = sorted(i for i in neighbours if owner.get(i) != i)
    return dropped, {i: shapes[i] for i in sorted(changed)}


def rivals_of(
    neighbours: list[tuple[int, bool]], owner: dict[int, int], cut: NDArray[np.bool_], *, own_cut: bool
) -> dict[int, tuple[bool, bool]]:
    """Accepted nuclei that a claim meets: whether embeddings agree, and whether one of both is cut.

    A piece that was united with a nucleus is met as that nucleus.
    """
    rivals: dict[int, tuple[bool, bool]] = {}
    for k, near in neighbours:
        if k in owner:
            was_near, was_cut = rivals.get(owner[k], (False, own_cut))
            rivals[owner[k]] = was_near or near, was_cut or (near and bool(cut[k]))
    return rivals


def meet(
    claimed: shapely.Geometry, me: int, rivals: list[tuple[int, shapely.Geometry, bool, bool]]
) -> tuple[int | None, shapely.Geometry]:
    """Which nucleus a claim belongs to, itself, a rival or none, and what it has that no rival covers.

    Parameters
    ----------
    rivals : of (number, polygon, near, cut)
        Accepted nuclei by rank; whether embeddings agree, and whether one of both is cut.
    """
    mine, fate = claimed, me
    for j, other, near, cut in rivals:
        common = shapely.intersection(mine, other).area
        share = common / max(min(mine.area, other.area), 1e-9)
        if fate == me and near and common > 0 and (cut or share <= SHARE):
            fate = j
        elif share > SHARE:
            return None, mine
        elif common > 0:
            mine = largest(shapely.difference(mine, other))
    if fate == me and mine.area < 0.5 * claimed.area:
        return None, mine
    return fate, mine


def largest(shape: shapely.Geometry) -> shapely.Geometry:
    """The largest polygon of a geometry; an empty one where it has none."""
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
    if any(p.geom_type == "MultiPolygon" for p in shapely.get_parts(shape)):
        parts += [q for p in shapely.get_parts(shape) if p.geom_type == "MultiPolygon" for q in p.geoms]
    return max(parts, key=lambda p: p.area, default=shapely.Polygon())


def redraw(nuclei: NucleusTable, changed: dict[int, shapely.Geometry]) -> NucleusTable:
    """The table with new outlines, centroids and areas at some rows."""
    if not changed:
        return nuclei
    rows = np.array(list(changed))
    polygons = np.array(list(changed.values()), object)
    vertices, offsets = from_shapely(polygons)
    new = replace(
        nuclei.take(rows),
        centroid=shapely.get_coordinates(shapely.centroid(polygons))[:, ::-1].copy(),
        area=shapely.area(polygons),
        vertices=vertices.astype(np.float32),
        offsets=offsets,
    )
    others = np.setdiff1d(np.arange(len(nuclei)), rows)
    both = concatenate([nuclei.take(others), new])
    return both.take(np.argsort(np.concatenate([others, rows]), kind="stable"))
