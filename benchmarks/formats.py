"""A million nuclei in every format: seconds, peak memory, size.

    python benchmarks/formats.py SOURCE -o FOLDER [--nuclei 1000000] [--suffix .csv ...] [--json]

SOURCE is a store or a GeoJSON file of a real slide; its nuclei are laid out in a grid of mirrored copies, until there are
enough, and kept in FOLDER/1000000.zarr. Each format is then written from that store in a process of its own: its peak is
all that the process ever held, libraries included, and the first row is what a process that only reads the store holds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsiseg.export import ExportInfo, suffixes, zarr
from wsiseg.export._features import DETECTION_PROBABILITY
from wsiseg.export.zarr import read_store
from wsiseg.nuclei import NucleusTable, concatenate
from wsiseg.outlines import features, rings, texts
from wsiseg.outputs import convert
from wsiseg.polygons import from_shapely
from wsiseg.result import pieces

ACROSS = 4
"""Copies side by side."""

READ = "read only"


def main() -> None:
    """Make the store, write every format, print."""
    options = arguments()
    if options.one:
        one(options.source, options.output, options.one)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    store = options.output / f"{options.nuclei}.zarr"
    if not store.exists():
        make_store(store, options.source, options.nuclei)
    found = {name: measured(store, options.output, name) for name in (READ, *options.suffix)}
    if options.json:
        print(json.dumps(found))
        return
    print("| format | nuclei | s | peak GB | MB | files |\n" + "|---" * 6 + "|")
    for name, row in found.items():
        print(
            f"| {name} | {row['nuclei']:,} | {row['seconds']:.0f} | {row['peak_gb']:.2f} "
            f"| {row['bytes'] / 1e6:,.0f} | {row['files']:,} |"
        )


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the store and the files")
    parser.add_argument("--nuclei", type=int, default=1_000_000)
    alone = [suffix for suffix in suffixes() if suffix not in (".json", ".json.gz", ".geo.parquet")]
    parser.add_argument("--suffix", nargs="+", default=alone)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(store: Path, folder: Path, name: str) -> dict[str, Any]:
    """A format written in a process of its own: what it says."""
    command = [sys.executable, __file__, str(store), "-o", str(folder), "--one", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(name, row, file=sys.stderr, flush=True)
    return row


def one(store: Path, folder: Path, name: str) -> None:
    """Write one format and print what it took."""
    path = folder / f"out{name}"
    began = time.perf_counter()
    nuclei = sum(map(len, read_store(store)[1])) if name == READ else convert(store, path)
    seconds = time.perf_counter() - began
    files = [file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    print(
        json.dumps(
            {
                "nuclei": nuclei,
                "seconds": round(seconds, 1),
                "peak_gb": round(peak() / 1e9, 3),
                "bytes": sum(file.stat().st_size for file in files),
                "files": len(files),
            }
        )
    )
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def peak() -> int:
    """Bytes that this process held at most; `getrusage` would count those of the process that began it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def make_store(store: Path, source: Path, nuclei: int) -> None:
    """A store of so many nuclei, mirrored copies of those of `source` in a grid."""
    info, table = read_any(source)
    height, width = info.shape or np.ceil(table.vertices.max(0)).astype(int).tolist()
    rows = -(-nuclei // (len(table) * ACROSS))
    whole = replace(info, regions=(), shape=(height * rows, width * ACROSS))

    def copies() -> Iterator[NucleusTable]:
        left = nuclei
        for number in count():
            row, column = divmod(number, ACROSS)
            copy = table.take(np.arange(min(left, len(table))))
            copy = mirrored(copy, (height, width), (row % 2 == 1, column % 2 == 1)).shift(
                row * height, column * width
            )
            yield from pieces(copy)
            left -= len(copy)
            if not left:
                return

    zarr.write(store, copies(), whole)


def mirrored(table: NucleusTable, shape: tuple[int, int], axes: tuple[bool, bool]) -> NucleusTable:
    """The nuclei of a picture that is turned over in `axes` (y, x)."""
    sign, shift = np.where(axes, -1.0, 1.0), np.where(axes, shape, 0)
    return replace(
        table,
        centroid=table.centroid * sign + shift,
        vertices=(table.vertices * sign + shift).astype(np.float32),
    )


def read_any(source: Path) -> tuple[ExportInfo, NucleusTable]:
    """The nuclei of a store, or of a GeoJSON file, which does not say how large its pixels are: 0.5 um."""
    if source.is_dir():
        info, tables = read_store(source)
        return info, concatenate([*tables])
    info = ExportInfo(fingerprint=source.name, mpp=0.5)
    return info, concatenate([*of_features(source, info.mpp)])


def of_features(source: Path, mpp: float) -> Iterator[NucleusTable]:
    """The detections of a GeoJSON file."""
    for text in texts(source):
        nuclei = (f for f in features(text) if f["properties"].get("objectType") == "detection")
        while some := list(islice(nuclei, 50_000)):
            outlines = shapely.polygons([shapely.linearrings(next(rings(f))[:, ::-1]) for f in some])
            vertices, offsets = from_shapely(outlines)
            values = [f["properties"]["measurements"] for f in some]
            names = [name for name in values[0] if name != DETECTION_PROBABILITY]
            yield NucleusTable(
                mpp=mpp,
                centroid=shapely.get_coordinates(shapely.centroid(outlines))[:, ::-1],
                area=shapely.area(outlines),
                score=np.array([each[DETECTION_PROBABILITY] for each in values], np.float32),
                label=np.zeros(len(some), np.int32),
                tile=np.zeros(len(some), np.int32),
                vertices=vertices.astype(np.float32),
                offsets=offsets,
                columns={
                    name: np.array([each.get(name, np.nan) for each in values], np.float32) for name in names
                },
            )


if __name__ == "__main__":
    main()
