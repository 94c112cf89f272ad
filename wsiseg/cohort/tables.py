"""One table of a whole cohort: a row a slide, and on request a row a nucleus, as Parquet."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from wsiseg.cohort.plan import Plan, Planned
from wsiseg.cohort.status import Row, status
from wsiseg.errors import DataError, OutputError, brief
from wsiseg.export import exporter_for, geojson, geojson_gz, zarr, zip
from wsiseg.export._complete import complete
from wsiseg.export._features import DETECTION_PROBABILITY
from wsiseg.export.zarr import read_store
from wsiseg.outlines import features, rings, texts

PIECE = 50_000
"""Nuclei of a row group: what is held at a time."""

DAMAGES = (ValueError, KeyError, TypeError, IndexError, EOFError, StopIteration, BadZipFile, zlib.error)
"""What reading raises of a file that is not whole."""

Columns = dict[str, list[Any]]


def write_slides(plan: Plan, path: Path) -> int:
    """Write a row for every slide of a cohort, whatever its state; returns how many.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    rows = status(plan).rows
    with complete(path) as part:
        pq.write_table(pa.Table.from_pylist([_summary(plan, row) for row in rows], SLIDES), part)
    return len(rows)


SLIDES = pa.schema(
    [
        ("slide", pa.string()),
        ("output", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("nuclei", pa.int64()),
        ("tissue_mm2", pa.float64()),
        ("nuclei_per_mm2", pa.float64()),
        ("mpp", pa.float64()),
        ("tiles", pa.int64()),
        ("seconds", pa.float64()),
        ("model", pa.string()),
        ("worker", pa.string()),
    ]
)


def _summary(plan: Plan, row: Row) -> dict[str, object]:
    slide, done = row.slide, row.state == "done"
    return {
        "slide": slide.slide,
        "output": slide.output if done else None,
        "state": row.state,
        "reason": row.reason or None,
        "nuclei": row.nuclei if done else None,
        "tissue_mm2": slide.mm2 or None,
        "nuclei_per_mm2": row.nuclei / slide.mm2 if done and slide.mm2 else None,
        "mpp": slide.mpp or None,
        "tiles": slide.tiles or None,
        "seconds": row.seconds if done else None,
        "model": slide.model or plan.options.model,
        "worker": row.who or None,
    }


def write_nuclei(plan: Plan, path: Path) -> int:
    """Write a row for every nucleus of the slides that are done, slide by slide; returns how many.

    Columns: slide, x and y (centroid in level-0 pixels), x_um and y_um, class, probability, then the
    measurements by their names in QuPath.

    Raises
    ------
    DataError
        If no slide is done, or a result is missing.
    OutputError
        If it cannot be written.
    """
    slides = [row.slide for row in status(plan).rows if row.state == "done"]
    if not slides:
        raise DataError(f"{plan.folder}: no slide is done yet; see wsiseg cohort status {plan.folder}")
    pieces = (piece for slide in slides for piece in nuclei_of(plan, slide))
    first = next(pieces, None)
    schema = _schema(first or {})
    count = 0
    with complete(path) as part:
        try:
            with closing(pq.ParquetWriter(part, schema)) as writer:
                for piece in chain([first] if first else [], pieces):
                    size = len(piece["slide"])
                    # A slide whose model measures less than the first's has nothing there.
                    rows = {name: piece.get(name, [None] * size) for name in schema.names}
                    writer.write_table(pa.table(rows, schema))
                    count += size
        except pa.ArrowException as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error
    return count


FIXED = {
    "slide": pa.dictionary(pa.int32(), pa.string()),
    **{name: pa.float64() for name in ("x", "y", "x_um", "y_um")},
    "class": pa.dictionary(pa.int32(), pa.string()),
    "probability": pa.float32(),
}


def _schema(first: Columns) -> pa.Schema:
    measured = [(name, pa.float32()) for name in first if name not in FIXED]
    return pa.schema([*FIXED.items(), *measured])


def nuclei_of(plan: Plan, slide: Planned) -> Iterator[Columns]:
    """The nuclei of a slide's result, `PIECE` at a time, as columns.

    Raises
    ------
    DataError
        If the result is missing, or of a format that is only written.
    """
    path = plan.folder / slide.output
    if not path.exists():
        raise DataError(f"{path}: is missing although its slide is done; delete its outcome and run again")
    written_by = exporter_for(path)
    if written_by is zarr:
        yield from _of_store(path, slide)
        return
    if written_by not in (geojson, geojson_gz, zip):
        raise DataError(
            f"{path}: nuclei are merged from .zarr, .geojson, .geojson.gz and .zip; plan the cohort with one of them"
        )
    try:
        for text in texts(path):
            yield from _of_features(features(text), slide)
    except DAMAGES as error:
        raise DataError(f"{path}: damaged ({brief(error)}); segment the slide again") from error


def _of_store(path: Path, slide: Planned) -> Iterator[Columns]:
    info, tables = read_store(path)
    for table in tables:
        names = np.array(info.class_names)[table.label]
        yield {
            **_placed(slide, table.centroid[:, 1], table.centroid[:, 0]),
            "class": names.tolist(),
            "probability": table.score.tolist(),
            **{name: values.tolist() for name, values in table.columns.items()},
        }


def _of_features(found: Iterable[dict[str, Any]], slide: Planned) -> Iterator[Columns]:
    nuclei = (f for f in found if (f.get("properties") or {}).get("objectType") in ("detection", "cell"))
    while piece := list(islice(nuclei, PIECE)):
        # Of a cell, the nucleus's ring comes first.
        outlines = shapely.polygons([shapely.linearrings(next(rings(f))[:, ::-1]) for f in piece])
        x, y = shapely.get_coordinates(shapely.centroid(outlines)).T
        measured = [f["properties"].get("measurements", {}) for f in piece]
        names = dict.fromkeys(name for values in measured for name in values)
        names.pop(DETECTION_PROBABILITY, None)
        yield {
            **_placed(slide, x, y),
            "class": [f["properties"]["classification"]["name"] for f in piece],
            "probability": [values.get(DETECTION_PROBABILITY) for values in measured],
            **{name: [values.get(name) for values in measured] for name in names},
        }


def _placed(slide: Planned, x: Any, y: Any) -> Columns:
    place = {"x": x, "y": y, "x_um": x * slide.mpp, "y_um": y * slide.mpp}
    return {"slide": [slide.slide] * len(x), **{name: values.tolist() for name, values in place.items()}}
