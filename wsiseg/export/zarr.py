"""The store: one zarr group a slide that keeps all that is known of its nuclei, in few files.

out.zarr/                  attributes: format, counts, scale, shape, classes, measurements, provenance, sizes of files
    centroid area score label tile vertices offsets      the columns of a `NucleusTable`, level-0 pixels
    columns (N, C)         measurements, named in the attributes
    cells/                 vertices and offsets of the cells around the nuclei, where there are any
    regions/               rings of what was processed: vertices, offsets, and the region each ring is of
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsiseg import nuclei as tables
from wsiseg.errors import StoreError
from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._growing import Growing
from wsiseg.export._info import ExportInfo
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.regions import Region

SUFFIXES = (".zarr",)

ABOUT = About("the store: all that is known, for later exports", "wsiseg")

FORMAT = "wsiseg-nuclei-1"

PIECE = 10_000
"""Nuclei of a table that is read back."""

FIELDS = ("centroid", "area", "score", "label", "tile", "vertices", "offsets")

DAMAGES = (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError)
"""What zarr and its codecs raise when a file is missing, cut off or changed."""


def write(path: Path, nuclei: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write a store; it appears under its name when it is complete. Returns the number of nuclei.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with complete(path) as temporary:
        return write_group(temporary, nuclei, info)


def write_group(folder: Path, nuclei: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write the group of a store, table by table; returns the number of nuclei.

    Its attributes come last, for they name the size of every other file.
    """
    group = zarr.create_group(folder, zarr_format=3)
    columns: dict[str, Growing] = {}
    names: list[str] = []
    with_cells = False
    count = corners = cell_corners = 0
    for table in chain(nuclei, [tables.empty(info.mpp)]):
        if not columns:
            names, with_cells = list(table.columns), table.cells is not None
            columns = {name: file_of(group, name) for name in (*FIELDS, "columns")}
            if with_cells:
                inner = group.require_group("cells")
                columns |= {f"cells/{name}": file_of(inner, name) for name in ("vertices", "offsets")}
            for name in columns:
                if name.endswith("offsets"):
                    columns[name].append(np.zeros(1, np.int64))
        elif not len(table):
            continue
        for name in FIELDS:
            values = getattr(table, name)
            columns[name].append(values[1:] + corners if name == "offsets" else values)
        if table.cells is not None:
            columns["cells/vertices"].append(table.cells.vertices)
            columns["cells/offsets"].append(table.cells.offsets[1:] + cell_corners)
            cell_corners += len(table.cells.vertices)
        stacked = [table.columns[name] for name in names]
        columns["columns"].append(
            np.stack(stacked, axis=1) if names else np.zeros((len(table), 0), np.float32)
        )
        count, corners = count + len(table), corners + len(table.vertices)
    for column in columns.values():
        column.finish()
    for name, values in rings_of(info.regions).items():
        ring = file_of(group.require_group("regions"), name)
        ring.append(values)
        ring.finish()
    group.attrs.put(
        {
            "format": FORMAT,
            "nuclei": count,
            "mpp": info.mpp,
            "shape": None if info.shape is None else list(info.shape),
            "dicom": dict(info.dicom),
            "fingerprint": info.fingerprint,
            "class_names": list(info.class_names),
            "class_colors": [list(color) for color in info.class_colors],
            "measurements": names,
            "cells": with_cells,
            "region_names": [region.name for region in info.regions],
            "provenance": json.loads(json.dumps(dict(info.provenance))),
            "files": sizes(folder),
        }
    )
    return count


def file_of(group: zarr.Group, name: str) -> Growing:
    """An array of a store that grows."""
    return Growing(group, name, sharded=True)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below `folder` but its own metadata: zarr takes a missing file for zeros."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.parent != folder)
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def read_store(path: Path) -> tuple[ExportInfo, Iterator[NucleusTable]]:
    """What a store says of its slide, and its nuclei in pieces, level-0 pixels.

    Raises
    ------
    StoreError
        If it is none of ours, of another version, or damaged; also while the nuclei are read.
    """
    if not path.is_dir():
        raise StoreError(
            f"{path}: no such store; a store is the folder that `wsiseg segment -o OUT.zarr` writes"
        )
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        about = dict(group.attrs)
        if about.get("format") != FORMAT:
            raise StoreError(
                f"{path}: not a store of nuclei of this version (format {about.get('format')!r})"
            )
        if sizes(path) != about["files"]:
            raise StoreError(f"{path}: damaged (files are missing or cut off); segment the slide again")
        return info_of(group, about), pieces_of(path, group, about)
    except DAMAGES as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> StoreError:
    """The error that says so."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return StoreError(f"{path}: not a store of nuclei, or damaged ({first}); segment the slide again")


def info_of(group: zarr.Group, about: dict[str, Any]) -> ExportInfo:
    """What an exporter is told, from the attributes of a store."""
    return ExportInfo(
        fingerprint=about["fingerprint"],
        class_names=tuple(about["class_names"]),
        class_colors=tuple((int(r), int(g), int(b)) for r, g, b in about["class_colors"]),
        regions=regions_of(group, about["region_names"]),
        mpp=float(about["mpp"]),
        provenance=about["provenance"],
        shape=tuple(about["shape"]) if about.get("shape") else None,
        dicom=about.get("dicom", {}),
    )


def pieces_of(path: Path, group: zarr.Group, about: dict[str, Any]) -> Iterator[NucleusTable]:
    """The nuclei of a store, `PIECE` at a time."""
    try:
        for start in range(0, about["nuclei"], PIECE):
            yield piece(group, start, min(start + PIECE, about["nuclei"]), about)
    except DAMAGES as error:
        raise damaged(path, error) from error


def piece(group: zarr.Group, start: int, stop: int, about: dict[str, Any]) -> NucleusTable:
    """Nuclei `start` to `stop` of a store."""
    offsets = read(group, "offsets", start, stop + 1)
    columns = read(group, "columns", start, stop)
    rows = {n: read(group, n, start, stop) for n in ("centroid", "area", "score", "label", "tile")}
    return NucleusTable(
        mpp=float(about["mpp"]),
        **rows,
        vertices=read(group, "vertices", int(offsets[0]), int(offsets[-1])),
        offsets=offsets - offsets[0],
        columns={name: columns[:, i] for i, name in enumerate(about["measurements"])},
        cells=cells_of(group, start, stop) if about.get("cells") else None,
    )


def cells_of(group: zarr.Group, start: int, stop: int) -> Rings:
    """Cells of nuclei `start` to `stop` of a store."""
    offsets = read(group, "cells/offsets", start, stop + 1)
    return Rings(read(group, "cells/vertices", int(offsets[0]), int(offsets[-1])), offsets - offsets[0])


def read(group: zarr.Group, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Rows `start` to `stop` of an array of a group."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is no array")
    return np.asarray(array[start : array.shape[0] if stop is None else stop])


def rings_of(regions: Sequence[Region]) -> dict[str, NDArray[Any]]:
    """Rings of all regions, one after another; the first ring of a region is its exterior."""
    rings = [(i, ring) for i, region in enumerate(regions) for ring in (region.exterior, *region.holes)]
    return {
        "vertices": np.concatenate([np.zeros((0, 2)), *(ring for _, ring in rings)]),
        "offsets": np.cumsum([0, *(len(ring) for _, ring in rings)], dtype=np.int64),
        "region": np.array([i for i, _ in rings], np.int32),
    }


def regions_of(group: zarr.Group, names: Sequence[str]) -> tuple[Region, ...]:
    """The regions that `rings_of` took apart."""
    vertices, offsets, owner = (read(group, f"regions/{n}") for n in ("vertices", "offsets", "region"))
    rings = [vertices[a:b] for a, b in pairwise(offsets)]
    of = [[ring for ring, i in zip(rings, owner, strict=True) if i == k] for k in range(len(names))]
    return tuple(Region(r[0], tuple(r[1:]), name) for r, name in zip(of, names, strict=True))
