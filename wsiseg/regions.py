"""Regions drawn in QuPath, and the tissue that was processed: polygons with holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from wsiseg.errors import RegionError
from wsiseg.features import Geometry, read_geometries

TIE = 1e-6
"""Pixels by which a point on an outline counts as below and to the right of it: of two regions that meet, one has it."""
PARTS = 8
"""Into how many parts, each way, a pixel that an outline crosses is cut to see how much of it lies inside."""
STRIDE = 1 / PARTS
"""Pixels between the points of an outline that are looked at, to find the pixels that it runs through."""


@dataclass(frozen=True, eq=False)
class Region:
    """One polygon.

    exterior : (K, 2) float64    (y, x) corners in level-0 pixels, not closed
    holes : of (L, 2) float64    likewise
    name : str                   what QuPath calls it; may be empty
    """

    exterior: NDArray[np.float64]
    holes: tuple[NDArray[np.float64], ...] = ()
    name: str = ""

    @cached_property
    def polygon(self) -> shapely.Polygon:
        """Its area in (y, x), with an index of its edges: outlines drawn by hand have thousands."""
        polygon = shapely.Polygon(self.exterior, self.holes)
        shapely.prepare(polygon)
        return polygon


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
    for region in regions:
        low = np.maximum(0, np.floor(region.exterior.min(0) / scale).astype(int))
        high = np.minimum(shape, np.ceil(region.exterior.max(0) / scale).astype(int))
        box = mask[low[0] : max(low[0], high[0]), low[1] : max(low[1], high[1])]
        centres = (_middles(box.shape) + low) * scale
        box |= _inside(region, centres).reshape(box.shape)
    return mask


def region_coverage(
    regions: Sequence[Region], shape: tuple[int, int], *, scale: float
) -> NDArray[np.float64]:
    """(H, W) share of each pixel of a raster that lies inside, 0 to 1; `scale` is level-0 pixels per raster pixel."""
    cover = region_mask(regions, shape, scale=scale).astype(np.float64)
    on_edge = np.argwhere(crossed(regions, shape, scale=scale))
    points = (on_edge[:, None] + _middles((PARTS, PARTS)) / PARTS).reshape(-1, 2) * scale
    cover[tuple(on_edge.T)] = region_contains(regions, points).reshape(-1, PARTS**2).mean(1)
    return cover


def _middles(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(H * W, 2) middles of the pixels of a raster, as (y, x), in reading order."""
    corners: NDArray[np.float64] = np.moveaxis(np.indices(shape, np.float64), 0, -1).reshape(-1, 2)
    return corners + 0.5


def crossed(regions: Sequence[Region], shape: tuple[int, int], *, scale: float) -> NDArray[np.bool_]:
    """Pixels of a raster that outlines run through; `scale` is level-0 pixels per raster pixel."""
    mask = np.zeros(shape, bool)
    for region in regions:
        for ring in (region.exterior, *region.holes):
            whole = shapely.LineString(np.concatenate([ring, ring[:1]]) / scale)
            line = shapely.clip_by_rect(whole, -1, -1, shape[0] + 1, shape[1] + 1)
            y, x = np.floor(shapely.get_coordinates(shapely.segmentize(line, STRIDE))).astype(np.int64).T
            seen = (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
            mask[y[seen], x[seen]] = True
    return mask


def region_contains(regions: Sequence[Region], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of `points` (N, 2), as (y, x) in level-0 pixels, lie inside any of `regions`."""
    inside = np.zeros(len(points), bool)
    for region in regions:
        inside |= _inside(region, points)
    return inside


def _inside(region: Region, points: NDArray[np.floating]) -> NDArray[np.bool_]:
    y, x = points.astype(np.float64).T + TIE
    inside: NDArray[np.bool_] = shapely.contains_xy(region.polygon, y, x)
    return inside


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
