"""A row a nucleus: what every table of nuclei holds, whatever its file is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from wsiseg.export._info import ExportInfo
from wsiseg.export._outlines import largest_polygons
from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import to_shapely

FIXED = {
    "nucleus": pa.int64(),
    **{name: pa.float64() for name in ("x", "y", "x_um", "y_um")},
    "class": pa.dictionary(pa.int32(), pa.string()),
    "probability": pa.float32(),
    "area_um2": pa.float64(),
}
"""Columns that every table has; measurements follow by their names in QuPath."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some nuclei, with what is written of them.

    first : int          number of the first; the nuclei of a slide are numbered from 1, alike in all formats
    table : NucleusTable
    polygons : (n,)      valid, without holes, (x, y), level-0 pixels; none is empty
    """

    first: int
    table: NucleusTable
    polygons: NDArray[np.object_]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(n,) the nuclei's numbers."""
        return np.arange(self.first, self.first + len(self.table))


def rows(tables: Iterable[NucleusTable]) -> Iterator[Rows]:
    """The nuclei, table by table; those whose outline encloses nothing are left out, as in GeoJSON."""
    first = 1
    for table in tables:
        polygons = valid(to_shapely(table.vertices, table.offsets))
        kept = ~shapely.is_empty(polygons)
        found = Rows(first, table if kept.all() else table.take(kept), polygons[kept])
        first += len(found.table)
        if len(found.table):
            yield found


def valid(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """(n,) the polygons, and of each that crosses itself the largest part; empty where nothing is enclosed.

    Corners stay where they are, unlike QuPath's, which lie on a grid: areas are those that were measured.
    """
    result = polygons.copy()
    crossed = ~shapely.is_valid(polygons)
    result[crossed] = largest_polygons(shapely.make_valid(polygons[crossed]), exterior=True)
    return result


def columns(found: Rows, info: ExportInfo, names: Iterable[str]) -> dict[str, pa.Array]:
    """Columns of some nuclei: those of `FIXED`, then the measurements `names`.

    What is not finite is null, as is what was not measured.
    """
    table, place = found.table, found.table.centroid
    classes = pa.DictionaryArray.from_arrays(
        pa.array(table.label, pa.int32()), pa.array(info.class_names, pa.string())
    )
    values: dict[str, pa.Array] = {
        "nucleus": pa.array(found.numbers),
        # A thousandth of a pixel is less than a nanometre.
        "x": pa.array(np.round(place[:, 1], 3)),
        "y": pa.array(np.round(place[:, 0], 3)),
        "x_um": pa.array(np.round(place[:, 1] * info.mpp, 4)),
        "y_um": pa.array(np.round(place[:, 0] * info.mpp, 4)),
        "class": classes,
        "probability": finite(table.score),
        "area_um2": pa.array(np.round(table.area * info.mpp**2, 4)),
    }
    for name in names:
        measured = table.columns.get(name)
        values[name] = pa.nulls(len(table), pa.float32()) if measured is None else finite(measured)
    return values


def finite(values: NDArray[np.floating]) -> pa.Array:
    """The values as float32, with null for what is not finite."""
    return pa.array(values.astype(np.float32), mask=~np.isfinite(values))


def schema(names: Iterable[str]) -> pa.Schema:
    """Of a table with the measurements `names`."""
    return pa.schema([*FIXED.items(), *((name, pa.float32()) for name in names)])


def about(info: ExportInfo) -> dict[str, str]:
    """What a file of rows says of its slide, as metadata: no more than the result itself knows."""
    told = {"fingerprint": info.fingerprint, "mpp": info.mpp, "provenance": dict(info.provenance)}
    return {"wsiseg": json.dumps(told, ensure_ascii=False, sort_keys=True)}
