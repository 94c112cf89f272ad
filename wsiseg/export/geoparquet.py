"""GeoParquet: outlines and measurements in one table, a row a nucleus.

Corners are level-0 pixels, y down, as in QuPath; the coordinate system is stated to be unknown, for it is none of
the Earth's.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._geo import GeoWriter
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import about, columns, rows, schema
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".geoparquet", ".geo.parquet")

ABOUT = About("outlines and measurements, a row a nucleus", "geopandas, QGIS, DuckDB, sf (R)")


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write a table with outlines, a row group for each table that comes; returns the number of rows."""
    pieces = rows(tables)
    first = next(pieces, None)
    names = list(first.table.columns) if first else []
    count = 0
    with complete(path) as temporary, GeoWriter(temporary, schema(names), about(info)) as writer:
        for found in chain([first] if first else [], pieces):
            writer.write(columns(found, info, names), found.polygons)
            count += len(found.table)
    return count
