"""SpatialData: outlines as shapes and measurements as an AnnData table, in one zarr group.

out.spatialdata.zarr/
    shapes/nuclei/shapes.parquet      GeoParquet, indexed by the numbers of the nuclei; level-0 pixels
    tables/measurements/              AnnData: X (N, C) measurements; obs: class, probability, area, and the
                                      shape each row is of; obsm: centroids (x, y)

Coordinate systems are `global`, level-0 pixels, and `um`, microns. Written by the formats' specifications
(container 0.2, shapes 0.3, tables 0.2, AnnData 0.1.0) piece by piece: their own libraries want all in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._geo import GeoWriter
from wsiseg.export._growing import Growing
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import Rows, about, rows
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".spatialdata.zarr",)

ABOUT = About("shapes and an AnnData table", "spatialdata, squidpy, napari-spatialdata")

SHAPES, TABLE = "nuclei", "measurements"

ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
FRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
CATEGORIES = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}

OBSERVED = ("region", "nucleus", "class", "probability", "area_um2")
"""Columns of the observations: `region` and `nucleus` say which shape a row is of."""


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write shapes and their table; returns the number of nuclei.

    Nothing but the table that came is held, and up to 65,536 rows of each column.
    """
    with complete(path) as temporary, ExitStack() as open_:
        root = zarr.create_group(temporary, zarr_format=3)
        shapes = root.create_group(f"shapes/{SHAPES}")
        table = Table(root.create_group(f"tables/{TABLE}"), info)
        names = pa.schema([("nucleus", pa.int64())])
        outlines = open_.enter_context(
            GeoWriter(temporary / "shapes" / SHAPES / "shapes.parquet", names, INDEXED)
        )
        count = 0
        for found in rows(tables):
            outlines.write({"nucleus": pa.array(found.numbers)}, found.polygons)
            table.append(found)
            count += len(found.table)
        table.finish()
        shapes.attrs.put(
            {
                "encoding-type": "ngff:shapes",
                "axes": ["x", "y"],
                "coordinateTransformations": [
                    {"type": "identity", **between("global")},
                    {"type": "scale", "scale": [info.mpp, info.mpp], **between("um", "micrometer")},
                ],
                "spatialdata_attrs": {"version": "0.3"},
            }
        )
        root.attrs.put(
            {
                "spatialdata_attrs": {"version": "0.2"},
                "wsiseg": json.loads(about(info)["wsiseg"]),
            }
        )
    return count


def between(system: str, unit: str = "unit") -> dict[str, Any]:
    """From the axes of the shapes to a coordinate system with axes of `unit`."""

    def axes(of: str) -> list[dict[str, str]]:
        return [{"name": name, "type": "space", "unit": of} for name in "xy"]

    return {"input": {"name": "xy", "axes": axes("unit")}, "output": {"name": system, "axes": axes(unit)}}


def pandas_index() -> dict[str, Any]:
    """What has pandas take the column `nucleus` for the index."""

    def column(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    return {
        "index_columns": ["nucleus"],
        "column_indexes": [],
        "columns": [column("geometry", "bytes", "object"), column("nucleus", "int64", "int64")],
        "pandas_version": "2.0.0",
    }


INDEXED = {"pandas": json.dumps(pandas_index())}


class Table:
    """An AnnData table that grows: see the module for what is where."""

    def __init__(self, group: zarr.Group, info: ExportInfo) -> None:
        self.group, self.info = group, info
        self.names: Sequence[str] | None = None
        group.attrs.put(
            {
                "encoding-type": "anndata",
                "encoding-version": "0.1.0",
                "spatialdata-encoding-type": "ngff:regions_table",
                "region": SHAPES,
                "region_key": "region",
                "instance_key": "nucleus",
                "version": "0.2",
            }
        )
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            group.create_group(name, attributes=DICT)
        self.observations = group.create_group("obs", attributes={**FRAME, "column-order": [*OBSERVED]})
        self.grown = {
            "X": growing(group, "X"),
            "spatial": growing(group["obsm"], "spatial"),
            "_index": Growing(self.observations, "_index", attributes=STRINGS, as_text=True),
            **{name: growing(self.observations, name) for name in ("nucleus", "probability", "area_um2")},
        }
        for name, categories in (("region", (SHAPES,)), ("class", info.class_names)):
            codes = self.observations.create_group(name, attributes=CATEGORIES)
            texts(codes, "categories", categories)
            self.grown[name] = growing(codes, "codes")
        keys = group.create_group("uns/spatialdata_attrs", attributes=DICT)
        for name, value in (("region", SHAPES), ("region_key", "region"), ("instance_key", "nucleus")):
            text(keys, name, value)
        colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in info.class_colors]
        texts(group["uns"], "class_colors", colors)

    def append(self, found: Rows) -> None:
        """Add the rows of some nuclei."""
        table = found.table
        if self.names is None:
            self.names = list(table.columns)
        self.put(
            found.numbers,
            measured=np.stack([table.columns[name] for name in self.names], axis=1)
            if self.names
            else np.zeros((len(table), 0), np.float32),
            place=table.centroid[:, ::-1],
            label=table.label,
            probability=table.score,
            area=table.area * self.info.mpp**2,
        )

    def put(
        self,
        numbers: NDArray[np.int64],
        *,
        measured: NDArray[np.float32],
        place: NDArray[np.float64],
        label: NDArray[np.int32],
        probability: NDArray[np.float32],
        area: NDArray[np.float64],
    ) -> None:
        """Add rows, column by column."""
        values: Mapping[str, NDArray[Any]] = {
            "X": measured,
            "spatial": place,
            "_index": numbers,
            "nucleus": numbers,
            "region": np.zeros(len(numbers), np.int8),
            "class": label.astype(np.int16),
            "probability": probability,
            "area_um2": area,
        }
        for name, rows_ in values.items():
            self.grown[name].append(rows_)

    def finish(self) -> None:
        """Write what is left, and the names of the measurements."""
        if self.names is None:
            self.names = []
            nothing = np.zeros(0)
            self.put(
                nothing.astype(np.int64),
                measured=np.zeros((0, 0), np.float32),
                place=np.zeros((0, 2)),
                label=nothing.astype(np.int32),
                probability=nothing.astype(np.float32),
                area=nothing,
            )
        for array in self.grown.values():
            array.finish()
        variables = self.group.create_group("var", attributes={**FRAME, "column-order": []})
        texts(variables, "_index", self.names)


def growing(group: Any, name: str) -> Growing:
    """An array of rows, in files that every reader of zarr version 3 knows."""
    return Growing(group, name, attributes=ARRAY)


def texts(group: Any, name: str, values: Sequence[str]) -> None:
    """An array of texts."""
    array = np.array([*values], np.dtypes.StringDType())
    group.create_array(name, data=array, attributes=STRINGS, chunks=(max(1, len(array)),))


def text(group: Any, name: str, value: str) -> None:
    """A single text."""
    attributes = {"encoding-type": "string", "encoding-version": "0.2.0"}
    group.create_array(name, data=np.array(value, np.dtypes.StringDType()), attributes=attributes)
