"""A table of measurements as CSV: a row a nucleus, for spreadsheets, R and pandas."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pyarrow as pa
from pyarrow.csv import CSVWriter

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import columns, rows, schema
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".csv",)

ABOUT = About("table of measurements as text, a row a nucleus", "spreadsheets, R, pandas")


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write a table in UTF-8 with a header; an empty cell is what was not measured. Returns the number of rows."""
    pieces = rows(tables)
    first = next(pieces, None)
    names = list(first.table.columns) if first else []
    # Names of classes as text: the writer of CSV knows no categories.
    shape = schema(names)
    shape = shape.set(shape.get_field_index("class"), pa.field("class", pa.string()))
    count = 0
    with complete(path) as temporary, temporary.open("wb") as file, CSVWriter(file, shape) as writer:
        for found in chain([first] if first else [], pieces):
            values = columns(found, info, names)
            writer.write_table(pa.table({**values, "class": values["class"].dictionary_decode()}, shape))
            count += len(found.table)
    return count
