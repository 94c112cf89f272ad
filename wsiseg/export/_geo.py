"""Polygons in Parquet, by the GeoParquet specification 1.1: well-known binary, no coordinate system of the Earth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyarrow.parquet import ParquetWriter

BOX = ("xmin", "ymin", "xmax", "ymax")

COVER = pa.struct([(name, pa.float64()) for name in BOX])
"""Bounds of each polygon, by which readers skip row groups that lie elsewhere."""


class GeoWriter:
    """A Parquet file with the columns of `shape`, the polygons and their bounds; left, it is complete.

    The extent of all polygons is known at the end, and stands in the metadata.
    """

    def __init__(self, path: Path, shape: pa.Schema, metadata: Mapping[str, str]) -> None:
        fields = [*shape, pa.field("geometry", pa.binary(), nullable=False), pa.field("bbox", COVER)]
        self.schema = pa.schema(fields, metadata)
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.writer = ParquetWriter(path, self.schema, compression="zstd")

    def __enter__(self) -> GeoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.writer.add_key_value_metadata({"geo": json.dumps(self.geo())})
        self.writer.close()

    def write(self, values: Mapping[str, pa.Array], polygons: NDArray[np.object_]) -> None:
        """Write a row group."""
        bounds = shapely.bounds(polygons)
        self.bounds[:2] = np.minimum(self.bounds[:2], bounds[:, :2].min(0))
        self.bounds[2:] = np.maximum(self.bounds[2:], bounds[:, 2:].max(0))
        cover = pa.StructArray.from_arrays([pa.array(edge) for edge in bounds.T], fields=[*COVER])
        shapes = pa.array(shapely.to_wkb(polygons), pa.binary())
        self.writer.write_table(pa.table({**values, "geometry": shapes, "bbox": cover}, self.schema))

    def geo(self) -> dict[str, Any]:
        """The metadata that makes a Parquet file one of GeoParquet."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None,
            "covering": {"bbox": {name: ["bbox", name] for name in BOX}},
        }
        if np.isfinite(self.bounds).all():
            column["bbox"] = self.bounds.tolist()
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
