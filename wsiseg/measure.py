"""Measurements of nuclei, under the names and by the formulas that QuPath uses."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg.label_sums import label_sums
from wsiseg.polygons import to_shapely

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Optical density in red, green, blue of haematoxylin and eosin: Ruifrok and Johnston (2001), QuPath's default."""

CHUNK = 20_000
"""Nuclei whose widths are measured at once: bounds the memory of the table of hull corners."""


def centroids(labels: NDArray[np.integer], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count, 2) mean of the pixels' centres (y, x), pixel corners at integers, and (count,) pixels.

    >>> centre, area = centroids(np.array([[0, 1, 1]]), 1)
    >>> centre.tolist(), area.tolist()
    ([[0.5, 2.0]], [2.0])
    """
    index = np.flatnonzero(labels)
    numbers = labels.reshape(-1)[index]
    y, x = np.divmod(index, labels.shape[1])
    area = np.bincount(numbers, minlength=count + 1)[1:].astype(np.float64)
    centre = [np.bincount(numbers, axis + 0.5, count + 1)[1:] / np.maximum(area, 1) for axis in (y, x)]
    return np.stack(centre, axis=1), area


def means(values: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(count,) mean of an (H, W) map over each label 1..count."""
    sums, sizes = label_sums(values[None], labels, count)
    result: NDArray[np.float32] = (sums[:, 0] / np.maximum(1, sizes)).astype(np.float32)
    return result


def shape_columns(
    vertices: NDArray[np.floating], offsets: NDArray[np.int64], *, mpp: float
) -> dict[str, NDArray[np.float32]]:
    """Shape of n rings (y, x), pixels of `mpp` microns.

    Returns, each (n,) float32: area and length (perimeter) of the exterior ring; circularity 4 pi A / P^2;
    solidity, the area as a share of the convex hull's; the diameter of the smallest enclosing circle and the
    smallest width.
    """
    polygons = to_shapely(vertices, offsets)
    hulls = shapely.convex_hull(polygons)
    area, length, hull = (
        f(p) for f, p in ((shapely.area, polygons), (shapely.length, polygons), (shapely.area, hulls))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "Area µm^2": area * mpp**2,
            "Length µm": length * mpp,
            "Circularity": np.minimum(1, 4 * np.pi * area / length**2),
            "Solidity": np.minimum(1, area / hull),
            "Max diameter µm": 2 * shapely.minimum_bounding_radius(polygons) * mpp,
            "Min diameter µm": smallest_widths(hulls) * mpp,
        }
    return {name: np.asarray(values, np.float32) for name, values in columns.items()}


def smallest_widths(hulls: NDArray[np.object_]) -> NDArray[np.float64]:
    """(n,) smallest distance between two parallel lines that hold each convex polygon between them.

    One of the two runs along an edge, so it is the least, over the edges, of the farthest corner's distance.
    """
    return np.concatenate(
        [np.zeros(0), *(_widths(hulls[i : i + CHUNK]) for i in range(0, len(hulls), CHUNK))]
    )


def _widths(hulls: NDArray[np.object_]) -> NDArray[np.float64]:
    points, index = shapely.get_coordinates(hulls, return_index=True)
    sizes = np.bincount(index, minlength=len(hulls))
    place = np.arange(len(points)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Padded with each polygon's first corner: no new corner, and edges of no length, which are left out.
    corners = np.repeat(points[np.cumsum(sizes) - sizes][:, None], sizes.max(initial=1), axis=1)
    corners[index, place] = points
    edges = np.roll(corners, -1, axis=1) - corners
    lengths = np.hypot(edges[..., 0], edges[..., 1])
    normals = np.stack([-edges[..., 1], edges[..., 0]], axis=-1)
    across = np.einsum("nkd,njd->nkj", normals, corners)
    spread = across.max(-1) - across.min(-1)
    return np.where(lengths > 0, spread / np.where(lengths > 0, lengths, 1), np.inf).min(1)


def stain_columns(
    rgb: NDArray[np.uint8], labels: NDArray[np.integer], count: int
) -> dict[str, NDArray[np.float32]]:
    """Mean optical density of haematoxylin and eosin in each nucleus of one tile, by colour deconvolution."""
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    residual = np.cross(unit[0], unit[1])
    basis = np.stack([*unit, residual / np.linalg.norm(residual)])
    density = -np.log10(np.maximum(rgb, 1).astype(np.float32) / 255)
    amounts = density @ np.linalg.inv(basis).astype(np.float32)
    names = ("Hematoxylin: Mean", "Eosin: Mean")
    return {name: means(amounts[..., i], labels, count) for i, name in enumerate(names)}
