"""What was found on a slide, read back whole: from a store, or from GeoJSON as wsiseg and QuPath write it."""

from __future__ import annotations

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsiseg import nuclei as tables
from wsiseg.errors import ContractError, InputError
from wsiseg.export.zarr import read_store
from wsiseg.nuclei import NucleusTable
from wsiseg.outlines import Color, color_of, features, texts
from wsiseg.polygons import to_shapely

DETECTION_PROBABILITY = "Detection probability"

NO_CLASS = "No class"
"""What nuclei without a class are called."""

MOST_CLASSES = 255
"""A nucleus's class is a byte on its way to the page."""

DAMAGES = (ValueError, AttributeError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading GeoJSON raises that is cut off, or none."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A result.

    path : Path
    nuclei : NucleusTable           level-0 pixels; scores are NaN where the file tells none
    class_names, class_colors       a nucleus's `label` is an index into both; colours are (r, g, b)
    mpp : float or None             microns per level-0 pixel, as the result says
    fingerprint : str or None       of the slide, likewise
    slide : str or None             name of the slide's file, likewise
    """

    path: Path
    nuclei: NucleusTable
    class_names: tuple[str, ...]
    class_colors: tuple[Color, ...]
    mpp: float | None = None
    fingerprint: str | None = None
    slide: str | None = None


def read_result(path: Path) -> Found:
    """Read a result whole.

    Raises
    ------
    StoreError
        If a store is none of ours, or damaged.
    ContractError
        If a GeoJSON file is damaged.
    InputError
        If there is no such file, its suffix is another, or it has more than 255 classes.
    """
    found = from_store(path) if path.suffix.lower() == ".zarr" else from_geojson(path)
    if len(found.class_names) > MOST_CLASSES:
        raise InputError(
            f"{path}: nuclei of {len(found.class_names)} classes; at most {MOST_CLASSES} can be shown"
        )
    return found


def from_store(path: Path) -> Found:
    """A store."""
    info, pieces = read_store(path)
    slide = info.provenance.get("slide")
    return Found(
        path=path,
        nuclei=tables.concatenate(list(pieces) or [tables.empty(info.mpp)]),
        class_names=info.class_names,
        class_colors=info.class_colors,
        mpp=info.mpp,
        fingerprint=info.fingerprint,
        slide=slide if isinstance(slide, str) else None,
    )


def from_geojson(path: Path) -> Found:
    """GeoJSON: its detections and cells, a cell by its nucleus; annotations are left out."""
    rings: list[NDArray[np.float32]] = []
    labels: list[int] = []
    classes: dict[tuple[str, Color], int] = {}
    values: defaultdict[str, dict[int, float]] = defaultdict(dict)
    try:
        for feature in (feature for file in texts(path) for feature in features(file)):
            about = feature.get("properties") or {}
            ring = outline(feature.get("nucleusGeometry") or feature.get("geometry") or {})
            if about.get("objectType") == "annotation" or ring is None:
                continue
            labels.append(classes.setdefault((class_name(about), color_of(about)), len(classes)))
            for name, value in measurements(about):
                values[name][len(rings)] = value
            rings.append(ring)
    except DAMAGES as error:
        raise ContractError(f"{path}: not a whole GeoJSON file ({error}); export it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    columns = {name: column(of, len(rings)) for name, of in values.items()}
    score = columns.pop(DETECTION_PROBABILITY, np.full(len(rings), np.nan, np.float32))
    return Found(
        path=path,
        nuclei=assembled(rings, np.array(labels, np.int32), score, columns),
        class_names=tuple(name for name, _ in classes) or (NO_CLASS,),
        class_colors=tuple(color for _, color in classes) or ((200, 60, 60),),
    )


def outline(geometry: dict[str, Any]) -> NDArray[np.float32] | None:
    """(K, 2) corners (y, x), not closed, of a polygon's exterior, that of most corners of several; None for no area."""
    coordinates = geometry.get("coordinates", [])
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(geometry.get("type", ""), [])
    if not polygons:
        return None
    corners = max((polygon[0] for polygon in polygons), key=len)
    ring = np.array(corners[:-1], np.float32).reshape(len(corners) - 1, -1)[:, 1::-1]
    if ring.shape[1:] != (2,) or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} corners is no area")
    return ring


def class_name(about: dict[str, Any]) -> str:
    """Name of a feature's class, of all its names where it has several."""
    given = about.get("classification")
    if isinstance(given, dict):
        return str(given.get("name") or ": ".join(given.get("names") or [])) or NO_CLASS
    return str(given or NO_CLASS)


def measurements(about: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """Names and values, as QuPath 0.4 and newer write them, and as older ones did."""
    given = about.get("measurements") or {}
    if isinstance(given, dict):
        return ((str(name), float(value)) for name, value in given.items())
    return ((str(each["name"]), float(each["value"])) for each in given)


def column(values: dict[int, float], count: int) -> NDArray[np.float32]:
    """(count,) values, NaN where there is none."""
    filled = np.full(count, np.nan, np.float32)
    filled[list(values)] = list(values.values())
    return filled


def assembled(
    rings: list[NDArray[np.float32]],
    labels: NDArray[np.int32],
    score: NDArray[np.float32],
    columns: dict[str, NDArray[np.float32]],
) -> NucleusTable:
    """The table of nuclei with these outlines."""
    vertices = np.concatenate([np.zeros((0, 2), np.float32), *rings])
    offsets = np.cumsum([0, *map(len, rings)], dtype=np.int64)
    polygons = to_shapely(vertices, offsets)
    return NucleusTable(
        mpp=1.0,  # nothing here is told in microns
        centroid=shapely.get_coordinates(shapely.centroid(polygons))[:, ::-1],
        area=shapely.area(polygons),
        score=score,
        label=labels,
        tile=np.zeros(len(rings), np.int32),
        vertices=vertices,
        offsets=offsets,
        columns=columns,
    )
