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
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import ContractError, OutputError
from wsiseg.geometry import Rect

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")

NO_CLASS = (200, 60, 60)
"""Colour of what has no class."""

CHUNK = 1 << 20
"""Characters read at a time: some hundred features."""

START = re.compile(r'\s*\[|"features"\s*:\s*\[')
"""Where the features begin: a bare array of them, or a FeatureCollection's."""

Color = tuple[int, int, int]


def read_outlines(path: Path, region: Rect | None = None) -> dict[Color, list[NDArray[np.float64]]]:
    """Rings of the detections and cells in a GeoJSON file, by the colour of their class.

    Parameters
    ----------
    path
        `.geojson` or `.json`, also with `.gz`, or a `.zip` of them.
    region
        Level-0 pixels; rings whose bounding box does not meet it are left out. All, where it is None.

    Returns
    -------
    colour -> rings
        Each ring (K, 2), corners (y, x) in level-0 pixels; holes are rings of their own. Annotations (the regions
        that were processed) are left out.

    Raises
    ------
    OutputError
        If there is no such file, or its suffix is another.
    ContractError
        If it is damaged.
    """
    found: defaultdict[Color, list[NDArray[np.float64]]] = defaultdict(list)
    try:
        with texts(path) as files:
            for file in files:
                for feature in features(file):
                    properties = feature.get("properties") or {}
                    if properties.get("objectType") != "annotation":
                        found[color_of(properties)] += [r for r in rings(feature) if meets(r, region)]
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(f"{path}: not a whole GeoJSON file ({error}); export it again") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return {color: group for color, group in found.items() if group}


@contextmanager
def texts(path: Path) -> Iterator[Iterator[IO[str]]]:
    """The GeoJSON texts in a file: one, or the entries of a zip."""
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise OutputError(f"{path}: outlines are read from {', '.join(SUFFIXES)}; convert it with `wsiseg export`")
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            yield (io.TextIOWrapper(archive.open(entry), "utf-8") for entry in archive.namelist())
    elif name.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield iter([file])
    else:
        with path.open(encoding="utf-8") as file:
            yield iter([file])


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
    text, at = seek_start(file)
    while True:
        at = len(text) - len(text[at : at + 64].lstrip(" \t\r\n,")) - max(0, len(text) - at - 64)
        if text[at : at + 1] == "]":
            return
        try:
            feature, at = decoder.raw_decode(text, at)
        except ValueError:
            more = file.read(CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            yield feature
