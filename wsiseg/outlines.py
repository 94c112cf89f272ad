"""Outlines read back from a result, for pictures: feature by feature, only those of one region kept."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import ContractError, InputError
from wsiseg.geometry import Rect

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")

NO_CLASS = (200, 60, 60)
"""Colour of what has no class."""

CHUNK = 1 << 20
"""Characters read at a time: some hundred features."""

ARRAY = re.compile(r"\s*\[")
COLLECTION = re.compile(r'"features"\s*:\s*\[')
"""Where the features begin: in a bare array of them, in a FeatureCollection."""

Color = tuple[int, int, int]


def read_outlines(path: Path, region: Rect | None = None) -> dict[Color, list[NDArray[np.float64]]]:
    """Rings of the detections and cells in a GeoJSON file, by the colour of their class; of a cell, its nucleus's too.

    Parameters
    ----------
    path
        `.geojson` or `.json`, also with `.gz`, or a `.zip` of them.
    region
        Level-0 pixels; rings whose bounding box does not meet it are left out. All, where it is None.

    Returns
    -------
    colour -> rings
        Each ring (K, 2), corners (y, x) in level-0 pixels; holes are rings of their own. Annotations (the
        regions that were processed) are left out.

    Raises
    ------
    InputError
        If there is no such file, or its suffix is another.
    ContractError
        If it is damaged.
    """
    found: defaultdict[Color, list[NDArray[np.float64]]] = defaultdict(list)
    try:
        for feature in (feature for file in texts(path) for feature in features(file)):
            properties = feature.get("properties") or {}
            if properties.get("objectType") != "annotation":
                found[color_of(properties)] += [ring for ring in rings(feature) if meets(ring, region)]
    except (
        ValueError,
        AttributeError,
        TypeError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ContractError(f"{path}: not a whole GeoJSON file ({error}); export it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return {color: group for color, group in found.items() if group}


def texts(path: Path) -> Iterator[IO[str]]:
    """The GeoJSON texts in a file, open: one, or the entries of a zip.

    Raises
    ------
    InputError
        If the suffix is none of `SUFFIXES`.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise InputError(
            f"{path}: outlines are read from {', '.join(SUFFIXES)}; convert it with wsiseg export"
        )
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with io.TextIOWrapper(archive.open(entry), "utf-8") as file:
                    yield file
    else:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if name.endswith(".gz")
            else path.open(encoding="utf-8") as file
        ):
            yield file


def features(file: IO[str]) -> Iterator[dict[str, Any]]:
    """The features of one text, one after another; memory does not grow with their number.

    >>> list(features(io.StringIO('{"features": [{"id": 1}, {"id": 2}]}')))
    [{'id': 1}, {'id': 2}]

    Raises
    ------
    ValueError
        If the text is no array of features, or ends within it.
    """
    decoder = json.JSONDecoder()
    text, at = seek_start(file), 0
    while True:
        at = next_sign(text, at)
        if text.startswith("]", at):
            return
        try:
            feature, at = decoder.raw_decode(text, at)
        except ValueError:
            more = file.read(CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            if not isinstance(feature, dict):
                raise ValueError("an array of something else than features")
            yield feature


def next_sign(text: str, at: int) -> int:
    """Index of the first character from `at` on that is neither blank nor a comma."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def seek_start(file: IO[str]) -> str:
    """Text from the first feature on.

    Raises
    ------
    ValueError
        If there are no features.
    """
    text = ""
    while more := file.read(CHUNK):
        text += more
        if start := ARRAY.match(text) or COLLECTION.search(text):
            return text[start.end() :]
    raise ValueError("there is no array of features in it")


def rings(feature: dict[str, Any]) -> Iterator[NDArray[np.float64]]:
    """Every ring of a feature's polygons, as corners (y, x): first of its nucleus, where it is a cell, then its own."""
    for key in ("nucleusGeometry", "geometry"):
        yield from rings_of(feature.get(key) or {})


def rings_of(geometry: dict[str, Any]) -> Iterator[NDArray[np.float64]]:
    """Every ring of a Polygon or MultiPolygon, as corners (y, x); of any other geometry, none."""
    coordinates = geometry.get("coordinates", [])
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(geometry.get("type", ""), [])
    return (np.array(ring, float)[:, 1::-1] for polygon in polygons for ring in polygon)


def color_of(properties: dict[str, Any]) -> Color:
    """Colour of a feature's class."""
    red, green, blue = (properties.get("classification") or {}).get("color", NO_CLASS)
    return int(red), int(green), int(blue)


def meets(ring: NDArray[np.float64], region: Rect | None) -> bool:
    """Whether the bounding box of `ring` and `region` share a point."""
    if region is None:
        return True
    (y0, x0), (y1, x1) = ring.min(axis=0), ring.max(axis=0)
    return bool(y0 <= region.y1 and y1 >= region.y0 and x0 <= region.x1 and x1 >= region.x0)
