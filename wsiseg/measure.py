"""Measurements of nuclei, under the names and by the formulas that QuPath uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg import compiled
from wsiseg.deconvolution import Stains
from wsiseg.label_sums import end_of_run, label_sums
from wsiseg.nuclei import Rings
from wsiseg.polygons import to_shapely

MEASURES = ("shape", "stain", "context")
"""What can be measured."""

AMBIGUOUS = "Ambiguous"
"""1 for a nucleus that the recipe could hardly tell from others, else 0; of recipes that know."""

STATISTICS = ("Mean", "Median", "Min", "Max", "Std.Dev.")
"""Of a stain's densities in a nucleus or its cytoplasm; the deviation is that of a sample (n - 1), as in QuPath."""

CHUNK = 20_000
"""Nuclei whose widths are measured at once: bounds the memory of the table of hull corners."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured, and whether cells are grown.

    shape, context : bool
    stains : Stains or None      whose densities are measured
    cells_um : float or None     by how much cells are larger than their nuclei
    """

    shape: bool = False
    context: bool = False
    stains: Stains | None = None
    cells_um: float | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what is measured."""
        asked = (self.shape, self.stains is not None, self.context)
        return tuple(name for name, wanted in zip(MEASURES, asked, strict=True) if wanted)


def centroids(labels: NDArray[np.integer], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count, 2) mean of the pixels' centres (y, x), pixel corners at integers, and (count,) pixels.

    >>> centre, area = centroids(np.array([[0, 1, 1]]), 1)
    >>> centre.tolist(), area.tolist()
    ([[0.5, 2.0]], [2.0])
    """
    if compiled.AVAILABLE:
        return _centroids(labels, count)
    index = np.flatnonzero(labels)
    numbers = labels.reshape(-1)[index]
    y, x = np.divmod(index, labels.shape[1])
    area = np.bincount(numbers, minlength=count + 1)[1:].astype(np.float64)
    centre = [np.bincount(numbers, axis + 0.5, count + 1)[1:] / np.maximum(area, 1) for axis in (y, x)]
    return np.stack(centre, axis=1), area


@compiled.compiled
def _centroids(labels: NDArray[np.integer], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centre, area = np.zeros((count, 2)), np.zeros(count)
    for y in range(len(labels)):
        stop = 0
        while stop < labels.shape[1]:
            start, stop = stop, end_of_run(labels[y], stop)
            label = labels[y, start] - 1
            if label >= 0:
                area[label] += stop - start
                centre[label, 0] += (stop - start) * (y + 0.5)
                centre[label, 1] += (stop - start) * (stop + start) / 2
    return centre / np.maximum(area, 1).reshape(-1, 1), area


def means(values: NDArray[np.floating], labels: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(count,) mean of an (H, W) map over each label 1..count."""
    sums, sizes = label_sums(values[None], labels, count)
    result: NDArray[np.float32] = (sums[:, 0] / np.maximum(1, sizes)).astype(np.float32)
    return result


def cell_shape_columns(nuclei: Rings, cells: Rings, *, mpp: float) -> dict[str, NDArray[np.float32]]:
    """Shape of n nuclei and of the cells around them, and the share of a cell's area that its nucleus has."""
    columns = {
        f"{part}: {name}": values
        for part, rings in (("Nucleus", nuclei), ("Cell", cells))
        for name, values in shape_columns(rings.vertices, rings.offsets, mpp=mpp).items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = columns["Nucleus: Area µm^2"] / columns["Cell: Area µm^2"]
    return {**columns, "Nucleus/Cell area ratio": np.clip(ratio, 0, 1)}


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


def solidity(rings: Rings) -> NDArray[np.float64]:
    """(n,) area of each ring as a share of its convex hull's."""
    polygons = to_shapely(rings.vertices, rings.offsets)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(1, shapely.area(polygons) / shapely.area(shapely.convex_hull(polygons)))


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
    rgb: NDArray[np.uint8], labels: NDArray[np.integer], count: int, stains: Stains, *, part: str = ""
) -> dict[str, NDArray[np.float32]]:
    """Optical densities of both stains over the pixels of each label 1..count, by colour deconvolution.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
    labels : (H, W) int    0 is not measured
    part
        "Nucleus" or "Cytoplasm" of a cell; "" for a detection.

    Returns
    -------
    name -> (count,) float32    NaN for a label without a pixel
    """
    found = _stain_statistics(rgb, labels, count, stains.densities(), stains.unmixing())
    begin = f"{part}: " if part else ""
    return {
        f"{begin}{stain}: {statistic}": found[:, i, k].astype(np.float32)
        for i, stain in enumerate(stains.names)
        for k, statistic in enumerate(STATISTICS)
    }


@compiled.compiled
def _stain_statistics(
    rgb: NDArray[np.uint8],
    labels: NDArray[np.integer],
    count: int,
    density: NDArray[np.float64],
    unmixing: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(count, 2, 5) statistics of (H, W) labels; pixels of a label are gathered in reading order."""
    ends = np.zeros(count + 1, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                ends[labels[y, x]] += 1
    ends = np.cumsum(ends)
    amounts = np.empty((2, ends[count]), np.float64)
    filled = ends.copy()
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                at = filled[label - 1]
                filled[label - 1] += 1
                for k in range(2):
                    amount = 0.0
                    for c in range(3):
                        amount += density[c, rgb[y, x, c]] * unmixing[c, k]
                    amounts[k, at] = amount
    out = np.full((count, 2, 5), np.nan)
    for label in range(count):
        size = ends[label + 1] - ends[label]
        if size == 0:
            continue
        for k in range(2):
            some = amounts[k, ends[label] : ends[label + 1]]
            mean = some.mean()
            out[label, k, 0], out[label, k, 1] = mean, np.median(some)
            out[label, k, 2], out[label, k, 3] = some.min(), some.max()
            out[label, k, 4] = np.sqrt(((some - mean) ** 2).sum() / max(1, size - 1))
    return out
