"""OME-Zarr labels: a label image of the slide's size, in levels, by NGFF 0.5.

out.ome.zarr/        attributes: multiscales with the pixel size, image-label
    0 1 2 ...        (H, W) uint32, 0 is background; a nucleus's pixels hold its number in the tables

It stands alone, and lies on its image when it is copied to IMAGE.ome.zarr/labels/nuclei.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsiseg.errors import OutputError
from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import rows
from wsiseg.export._scratch import scratch
from wsiseg.fill import fill
from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import from_shapely

SUFFIXES = (".ome.zarr",)

ABOUT = About("label image in levels, every pixel the number of its nucleus", "napari, ome-zarr")

SIDE = 4096
"""Pixels a side of what is drawn and written at once, a file of 64 MiB before compression."""

CHUNK = 512
"""Pixels a side of what a viewer reads at once."""

LEAST = 1024
"""The last level is no larger than this."""


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write a label image; returns the number of nuclei.

    Held at a time are the outlines that reach into `SIDE` rows of the slide, and twice `SIDE` x `SIDE` pixels.

    Raises
    ------
    OutputError
        If it cannot be written, or has more nuclei than the pixels can tell apart.
    """
    with scratch(path) as parts, complete(path) as temporary:
        count, reach = sort_by_bands(path, tables, parts)
        shape = info.shape or extent(info, reach)
        group = zarr.create_group(temporary, zarr_format=3)
        levels = [level(group, 0, shape)]
        for band in range(ceil(shape[0] / SIDE)):
            draw_band(levels[0], band, parts)
        while max(levels[-1].shape) > LEAST:
            levels.append(level(group, len(levels), tuple(ceil(n / 2) for n in levels[-1].shape)))
            halve(levels[-2], levels[-1])
        group.attrs.put({"ome": metadata(len(levels), info)})
    return count


def sort_by_bands(
    path: Path, tables: Iterable[NucleusTable], folder: Path
) -> tuple[int, tuple[float, float]]:
    """Put outlines into files by the bands of `SIDE` rows that they reach into; how many, and (y, x) they reach."""
    count, reach = 0, np.zeros(2)
    for piece, found in enumerate(rows(tables)):
        vertices, offsets = from_shapely(found.polygons)
        low, high = (f.reduceat(vertices, offsets[:-1], axis=0) for f in (np.minimum, np.maximum))
        reach = np.maximum(reach, high.max(0))
        first, last = np.floor(low[:, 0] / SIDE), np.floor(high[:, 0] / SIDE)
        count += len(found.table)
        if count > np.iinfo(np.uint32).max:
            raise OutputError(f"{path}: more than {np.iinfo(np.uint32).max:,} nuclei; choose another format")
        for band in range(max(0, int(first.min())), int(last.max()) + 1):
            inside = np.flatnonzero((first <= band) & (last >= band))
            if not len(inside):
                continue
            corners, ends = rings(vertices.astype(np.float32), offsets, inside)
            np.savez(
                folder / f"{band:06d}-{piece:06d}.npz",
                vertices=corners,
                sizes=np.diff(ends),
                numbers=found.numbers[inside],
            )
    return count, (float(reach[0]), float(reach[1]))


def extent(info: ExportInfo, reach: tuple[float, float]) -> tuple[int, int]:
    """(H, W) that holds all nuclei and regions, where the slide's is not known."""
    edges = np.array([reach, *(region.exterior.max(0) for region in info.regions)])
    y, x = np.maximum(1, np.ceil(edges.max(0))).astype(int).tolist()
    return y, x


def level(group: zarr.Group, number: int, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """An empty level; files are of `SIDE` pixels a side, and those without a nucleus are not written."""
    return group.create_array(
        str(number),
        shape=shape,
        dtype=np.uint32,
        chunks=(CHUNK, CHUNK),
        shards=(SIDE, SIDE),
        fill_value=0,
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=("y", "x"),
    )


def draw_band(array: zarr.Array[Any], band: int, folder: Path) -> None:
    """Draw the nuclei of one band of rows, square by square."""
    found = [np.load(file) for file in sorted(folder.glob(f"{band:06d}-*.npz"))]
    if not found:
        return
    vertices, sizes, numbers = (
        np.concatenate([part[name] for part in found]) for name in ("vertices", "sizes", "numbers")
    )
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    left, right = (f.reduceat(vertices[:, 1], offsets[:-1]) for f in (np.minimum, np.maximum))
    y, (height, width) = band * SIDE, array.shape
    for x in range(0, width, SIDE):
        here = np.flatnonzero((left < x + SIDE) & (right > x))
        if not len(here):
            continue
        corners, ends = rings(vertices, offsets, here)
        labels = np.zeros((min(SIDE, height - y), min(SIDE, width - x)), np.uint32)
        fill(labels, corners.astype(np.float64) - (y, x), ends, numbers[here])
        array[y : y + SIDE, x : x + SIDE] = labels


def rings(
    vertices: NDArray[np.float32], offsets: NDArray[np.int64], index: NDArray[np.integer]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The rings of `index`, as vertices and offsets."""
    sizes = np.diff(offsets)[index]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    source = np.repeat(offsets[:-1][index] - ends[:-1], sizes) + np.arange(ends[-1])
    return vertices[source], ends


def halve(fine: zarr.Array[Any], coarse: zarr.Array[Any]) -> None:
    """Fill a level with every second pixel of every second row of the one below: labels cannot be averaged."""
    for y, x in product(*(range(0, n, SIDE) for n in coarse.shape)):
        high, wide = (min(SIDE, n - at) for n, at in zip(coarse.shape, (y, x), strict=True))
        labels = np.zeros((high, wide), np.uint32)
        for i, j in product(range(0, 2 * high, SIDE), range(0, 2 * wide, SIDE)):
            part = np.asarray(fine[2 * y + i : 2 * y + i + SIDE, 2 * x + j : 2 * x + j + SIDE])[::2, ::2]
            labels[i // 2 : i // 2 + part.shape[0], j // 2 : j // 2 + part.shape[1]] = part
        if labels.any():
            coarse[y : y + SIDE, x : x + SIDE] = labels


def metadata(count: int, info: ExportInfo) -> dict[str, Any]:
    """What makes the group a label image of NGFF 0.5 with so many levels."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [{"type": "scale", "scale": [info.mpp * 2**number] * 2}],
        }
        for number in range(count)
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": "nuclei", "axes": axes, "datasets": datasets, "type": "nearest"}],
        "image-label": {"source": {"image": "../../"}},
    }
