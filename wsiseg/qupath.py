"""The import contract of QuPath, as a checker of files.

It answers one thing: would every version from 0.4.4 to 0.7.0 read a file whole?

One bad feature fails a whole import, so each is held against every rule. The rules were found by running
QuPath's own readers on files made for it.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import numpy as np
import shapely

from wsiseg.errors import ContractError

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip")
OBJECT_TYPES = ("annotation", "detection", "cell", "tile", "tmaCore")
GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
CLEARANCE = 0.01
"""Pixels. Parts of a ring that come closer than this are joined by QuPath's own rounding, and then it fails."""
MANY_ANNOTATIONS = 10_000
MANY_MEASUREMENTS = 15
SLOW = "slow reading"
PER_ENTRY = 50_000
LARGEST_EXACT = 16_777_216
"""Above this, float32 does not tell neighbouring integers apart."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that a file breaks.

    feature : str     number (from 0) and identity of the feature, or what else is meant
    rule : str        what is wrong, and what would be right
    severity : str    "error" fails an import or loses something, "warning" only makes it slow or unhandy
    """

    feature: str
    rule: str
    severity: Literal["error", "warning"] = "error"


def check_file(path: Path) -> tuple[Problem, ...]:
    """Hold a file against every rule.

    Returns
    -------
    what is wrong, in the order of the file; nothing, where QuPath reads it whole

    Raises
    ------
    ContractError
        If it cannot be read at all, or its suffix is none that QuPath opens.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ContractError(f"{path}: QuPath opens {', '.join(SUFFIXES)} as objects, and nothing else")
    try:
        if name.endswith(".zip"):
            return tuple(check_zip(path))
        data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ContractError(f"{path}: cannot be read ({error})") from error
    return tuple(check_text(data))


def check_zip(path: Path) -> Iterator[Problem]:
    """Every entry: one that fails is skipped by QuPath without a word."""
    seen: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        if not archive.namelist():
            yield Problem("the zip", "holds no entry")
        for entry in archive.namelist():
            if not entry.lower().endswith((".geojson", ".json")):
                yield Problem(entry, "an entry must be .geojson or .json; QuPath skips it silently")
                continue
            for problem in check_text(archive.read(entry), seen):
                yield Problem(f"{entry}: {problem.feature}", problem.rule, problem.severity)


def check_text(data: bytes, seen: set[str] | None = None) -> Iterator[Problem]:
    """One GeoJSON text; `seen` holds the identities of the texts before it."""
    seen = set() if seen is None else seen
    try:
        top = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        yield Problem("the file", f"is not JSON in UTF-8 ({error}); one FeatureCollection is expected")
        return
    features = top.get("features") if isinstance(top, dict) else top
    if isinstance(top, dict) and top.get("type") == "Feature":
        features = [top]
    elif isinstance(top, dict) and top.get("type") != "FeatureCollection":
        yield Problem("the file", f"type is {top.get('type')!r}; FeatureCollection is expected")
        return
    if not isinstance(features, list):
        yield Problem("the file", "has no list of features")
        return
    yield from _check_numbers(features)
    slow = False
    for number, feature in enumerate(features):
        for problem in check_feature(feature, str(number), seen):
            # All features of a file are measured alike: the first one tells.
            if not (slow and SLOW in problem.rule):
                yield problem
            slow |= SLOW in problem.rule


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _check_numbers(features: Sequence[Any]) -> Iterator[Problem]:
    kinds = [
        (f.get("properties") or {}).get("objectType", "annotation") for f in features if isinstance(f, dict)
    ]
    annotations = sum(kind not in OBJECT_TYPES[1:] for kind in kinds)
    if annotations > MANY_ANNOTATIONS:
        yield Problem(
            "the file", f"{annotations} annotations take minutes to nest; nuclei are detections", "warning"
        )
    if len(features) > PER_ENTRY + MANY_ANNOTATIONS:
        rule = f"{len(features)} features in one text need {len(features) * 8 // 1000} MB of QuPath's memory; write .zip"
        yield Problem("the file", rule, "warning")


def check_feature(feature: Any, number: str, seen: set[str]) -> Iterator[Problem]:
    """Every rule for one feature."""
    name = f"feature {number}"
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        yield Problem(name, "is no object of type Feature")
        return
    if isinstance(feature.get("id"), str):
        name += f" ({feature['id']})"
    rules = [
        *_check_nulls(feature),
        *_check_identity(feature, seen),
        *_check_geometry(feature.get("geometry")),
    ]
    properties = feature.get("properties")
    if isinstance(properties, dict):
        rules += [*_check_properties(properties)]
        if "nucleusGeometry" in feature:
            rules += [*_check_geometry(feature["nucleusGeometry"])]
            if properties.get("objectType") != "cell":
                rules.append(Problem("", "nucleusGeometry is lost: only an objectType 'cell' has a nucleus"))
    elif properties is not None:
        rules.append(Problem("", "properties must be an object"))
    yield from (Problem(name, rule.rule, rule.severity) for rule in rules)
    for i, child in enumerate(
        (properties or {}).get("childObjects", []) if isinstance(properties, dict) else []
    ):
        yield from check_feature(child, f"{number}.{i}", seen)


def _check_nulls(feature: dict[str, Any]) -> Iterator[Problem]:
    for key in ("id", "geometry", "properties", "nucleusGeometry"):
        if key in feature and feature[key] is None:
            yield Problem("", f"{key} is null; leave the key out")
    if "geometry" not in feature:
        yield Problem("", "has no geometry")


def _check_identity(feature: dict[str, Any], seen: set[str]) -> Iterator[Problem]:
    identity = feature.get("id")
    if identity is None:
        return
    try:
        UUID(identity)
    except (ValueError, AttributeError, TypeError):
        yield Problem("", f"id {identity!r} is no UUID; QuPath replaces it", "warning")
        return
    if identity in seen:
        yield Problem("", "id is that of an earlier feature")
    seen.add(identity)


def _check_properties(properties: dict[str, Any]) -> Iterator[Problem]:
    kind = properties.get("objectType")
    if kind not in OBJECT_TYPES:
        yield Problem("", f"objectType {kind!r} becomes an annotation; use one of {', '.join(OBJECT_TYPES)}")
    for key in ("name", "classification", "measurements", "color"):
        if key in properties and properties[key] is None:
            yield Problem("", f"{key} is null; leave the key out")
    if "name" in properties and not isinstance(properties["name"], str | None):
        yield Problem("", "name must be text")
    if properties.get("color") is not None and not _is_color(properties["color"]):
        yield Problem("", "color must be [r, g, b], integers of 0 to 255")
    if properties.get("classification") is not None:
        yield from _check_classification(properties["classification"])
    if properties.get("measurements") is not None:
        yield from _check_measurements(properties["measurements"])


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def _check_classification(value: Any) -> Iterator[Problem]:
    if isinstance(value, str):
        return
    if not isinstance(value, dict):
        yield Problem("", "classification must be {name, color}")
        return
    names = value.get("names", [value.get("name")])
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        yield Problem("", "classification must have a name, or a list of names")
    if not _is_color(value.get("color")):
        yield Problem("", "classification must have a color [r, g, b]; without one the import fails")


def _check_measurements(values: Any) -> Iterator[Problem]:
    if not isinstance(values, dict):
        yield Problem("", "measurements must be a map of names to numbers")
        return
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield Problem("", f"measurement {name!r} is {value!r}; only numbers can be read")
        elif not math.isfinite(value):
            yield Problem("", f"measurement {name!r} is not finite; leave it out")
        elif isinstance(value, int) and abs(value) > LARGEST_EXACT:
            yield Problem("", f"measurement {name!r} is {value}, which float32 cannot hold", "warning")
    if len(values) > MANY_MEASUREMENTS:
        rule = f"{len(values)} measurements {SLOW}; {MANY_MEASUREMENTS} are fine"
        yield Problem("", rule, "warning")


def _check_geometry(geometry: Any) -> Iterator[Problem]:
    if geometry is None:
        return
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRIES:
        yield Problem("", f"geometry of type {kind!r}; use one of {', '.join(GEOMETRIES)}")
        return
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or not coordinates:
        yield Problem("", "geometry without coordinates")
        return
    if kind == "MultiPolygon" and len(coordinates) == 1:
        yield Problem("", "a MultiPolygon of one part crashes 0.5.1 and older; write a Polygon")
    if kind in ("Polygon", "MultiPolygon"):
        for rings in [coordinates] if kind == "Polygon" else coordinates:
            yield from _check_rings(rings)
    elif not _are_numbers(coordinates):
        yield Problem("", "coordinates must be finite numbers")


def _check_rings(rings: Any) -> Iterator[Problem]:
    arrays = []
    for ring in rings if isinstance(rings, list) else [None]:
        if (
            not isinstance(ring, list)
            or not all(isinstance(p, list) and len(p) >= 2 for p in ring)
            or not _are_numbers(ring)
        ):
            yield Problem("", "a ring must be a list of [x, y], finite numbers")
            return
        if not ring or ring[0] != ring[-1]:
            yield Problem("", "a ring is not closed: its last corner must be its first")
            return
        if len({tuple(p[:2]) for p in ring}) < 3:
            yield Problem("", "a ring has fewer than 3 corners")
            return
        arrays.append(np.array([p[:2] for p in ring], float))
    if not arrays:
        yield Problem("", "a polygon without a ring")
        return
    # QuPath 0.6 and newer round to a hundredth of a pixel before they look.
    polygon = shapely.Polygon(arrays[0].round(2), [a.round(2) for a in arrays[1:]])
    if not polygon.is_valid:
        reason = re.sub(r"\s+", " ", shapely.is_valid_reason(polygon))
        yield Problem("", f"the polygon is invalid ({reason}); 0.6 and newer fail on it")
    elif shapely.minimum_clearance(polygon) < CLEARANCE:
        yield Problem("", f"parts of the polygon are closer than {CLEARANCE} px; 0.6 and newer fail on it")


def _are_numbers(value: Any) -> bool:
    """Whether nested lists hold finite numbers alone."""
    if isinstance(value, list):
        return bool(value) and all(_are_numbers(part) for part in value)
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
