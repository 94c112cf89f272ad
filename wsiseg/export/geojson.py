"""GeoJSON for QuPath."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsiseg.export._complete import complete
from wsiseg.export._features import collection
from wsiseg.export._info import ExportInfo
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".geojson", ".json")


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write one FeatureCollection; returns the number of nuclei."""
    count = 0
    with complete(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for text, nuclei in collection(tables, info):
            file.write(text)
            count += nuclei
    return count
