"""A table of measurements as Parquet: a row a nucleus, for pandas, polars, DuckDB and R."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import about, columns, rows, schema
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".parquet",)

ABOUT = About("table of measurements, a row a nucleus", "pandas, polars, DuckDB, R")


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write a table, a row group for each table that comes; returns the number of rows."""
    pieces = rows(tables)
    first = next(pieces, None)
    names = list(first.table.columns) if first else []
    shape = schema(names).with_metadata(about(info))
    count = 0
    with complete(path) as temporary, closing(ParquetWriter(temporary, shape, compression="zstd")) as writer:
        for found in chain([first] if first else [], pieces):
            writer.write_table(pa.table(columns(found, info, names), shape))
            count += len(found.table)
    return count
