"""A zip of GeoJSON files of 50,000 nuclei each: what QuPath still reads at a million, entry by entry."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._features import collection
from wsiseg.export._info import ExportInfo
from wsiseg.nuclei import NucleusTable, concatenate

SUFFIXES = (".zip",)

ABOUT = About("GeoJSON in entries of 50,000 nuclei, for large slides", "QuPath")

PER_ENTRY = 50_000

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every entry's time: the same nuclei give the same bytes."""


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write entries NAME-0001.geojson and so on; the regions are in the first. Returns the number of nuclei."""
    count = 0
    stem = path.name[: -len(".zip")].removesuffix(".geojson")
    with complete(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, table in enumerate(runs(tables), start=1):
            entry = zipfile.ZipInfo(f"{stem}-{number:04d}.geojson", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            part = info if number == 1 else replace(info, regions=())
            with archive.open(entry, "w") as raw, io.TextIOWrapper(raw, "utf-8", newline="\n") as file:
                for text, nuclei in collection([] if table is None else [table], part):
                    file.write(text)
                    count += nuclei
    return count


def runs(tables: Iterable[NucleusTable]) -> Iterator[NucleusTable | None]:
    """The same nuclei in tables of `PER_ENTRY`, the last with fewer; None alone where there are none."""
    held: list[NucleusTable] = []
    given = False
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= PER_ENTRY:
            together = concatenate(held)
            yield together.take(np.arange(PER_ENTRY))
            given = True
            held = [together.take(np.arange(PER_ENTRY, len(together)))]
    if sum(map(len, held)):
        yield concatenate(held)
    elif not given:
        yield None
