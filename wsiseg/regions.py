"""Regions drawn in QuPath, and the tissue that was processed: polygons with holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from wsiseg.errors import RegionError
from wsiseg.features import Geometry, read_geometries


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One polygon.

    exterior : (K, 2) float64    (y, x) corners in level-0 pixels, not closed
    holes : of (L, 2) float64    likewise
    name : str                   what QuPath calls it; may be empty
    """

    exterior: NDArray[np.float64]
    holes: tuple[NDArray[np.float64], ...] = ()
    name: str = ""


def read_regions(path: Path) -> tuple[Region, ...]:
    """Polygons of a GeoJSON file as QuPath exports annotations; points and lines are left out.

    Raises
    ------
    RegionError
        If the file cannot be read, is no GeoJSON, or holds no polygon.
    """
    try:
        regions = tuple(regions_of(read_geometries(path)))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RegionError(f"{path}: cannot be read as GeoJSON of regions ({error})") from error
    if not regions:
        raise RegionError(f"{path}: no polygon; draw at least one area annotation in QuPath and export it")
    return regions


def regions_of(geometries: Sequence[Geometry]) -> Iterator[Region]:
    """The polygons among some geometries, in their order.

    Raises
    ------
    ValueError, TypeError, IndexError
        If a ring is no area.
    """
    for each in geometries:
        polygons = {"Polygon": [each.coordinates], "MultiPolygon": each.coordinates}.get(each.kind, [])
        for rings in polygons:
            if not rings:
                raise ValueError("a polygon without corners is no area")
            yield Region(_ring(rings[0]), tuple(_ring(ring) for ring in rings[1:]), each.name)


def _ring(coordinates: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(K, 2) corners (y, x), without the closing one."""
    ring = np.array([[float(y), float(x)] for x, y, *_ in coordinates])
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} corners is no area")
    return ring


def region_mask(regions: Sequence[Region], shape: tuple[int, int], *, scale: float) -> NDArray[np.bool_]:
    """Which pixels of a raster have their centre inside; `scale` is level-0 pixels per raster pixel."""
    mask = np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for region in regions:
        low = np.maximum(0, np.floor(region.exterior.min(0) / scale).astype(int))
        high = np.minimum(shape, np.ceil(region.exterior.max(0) / scale).astype(int))
        box = (slice(low[0], max(low[0], high[0])), slice(low[1], max(low[1], high[1])))
        centres = (np.stack([y[box], x[box]], axis=-1).reshape(-1, 2) + 0.5) * scale
        mask[box] |= _inside(region, centres).reshape(mask[box].shape)
    return mask


def region_contains(regions: Sequence[Region], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of `points` (N, 2), as (y, x) in level-0 pixels, lie inside any of `regions`."""
    inside = np.zeros(len(points), bool)
    for region in regions:
        inside |= _inside(region, points)
    return inside


def _inside(region: Region, points: NDArray[np.floating]) -> NDArray[np.bool_]:
    inside = np.zeros(len(points), bool)
    near = np.flatnonzero(((points >= region.exterior.min(0)) & (points <= region.exterior.max(0))).all(1))
    odd = np.zeros(len(near), bool)
    for ring in (region.exterior, *region.holes):
        odd ^= _crossings(ring, points[near])
    inside[near] = odd
    return inside


def _crossings(ring: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether a ray from each point along x crosses the ring an odd number of times."""
    odd = np.zeros(len(points), bool)
    y, x = points[:, 0], points[:, 1]
    for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        spans = (y0 > y) != (y1 > y)
        if spans.any():
            odd ^= spans & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0 if y1 != y0 else 1.0))
    return odd


def trace_mask(mask: NDArray[np.bool_], *, scale: float, name: str = "Tissue") -> tuple[Region, ...]:
    """The pieces of a mask as polygons with holes, in level-0 pixels.

    `scale` is level-0 pixels per pixel of the mask. Outlines run along the edges of its pixels, their
    corners cut at the middle of each edge.
    """
    pieces, count = ndimage.label(mask)
    regions = []
    for number, box in enumerate(ndimage.find_objects(pieces, count), start=1):
        piece = np.pad(pieces[box] == number, 1)
        rings = [
            (ring[:-1] + np.array([box[0].start - 0.5, box[1].start - 0.5])) * scale
            for ring in find_contours(piece.astype(np.float32), 0.5, fully_connected="low")
        ]
        rings.sort(key=lambda ring: -abs(_area(ring)))
        regions.append(Region(rings[0], tuple(rings[1:]), f"{name} {number}" if count > 1 else name))
    return tuple(regions)


def _area(ring: NDArray[np.float64]) -> float:
    y, x = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
