"""GeoJSON as people hand it over: geometries one by one, whatever they are nested in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Geometry:
    """One simple geometry of a file.

    kind : str             Point, MultiPoint, Polygon, ...
    coordinates            as GeoJSON has them, (x, y)
    feature : int          which feature of the file it is in, from 1
    name, class_name : str    QuPath's name and classification; empty where there is none
    object_type : str      "annotation", "detection", "cell", ...; empty where there is none
    locked : bool          whether QuPath lets nobody move it: what wsiseg says it processed
    """

    kind: str
    coordinates: Any
    feature: int = 1
    name: str = ""
    class_name: str = ""
    object_type: str = ""
    locked: bool = False


def read_geometries(path: Path) -> list[Geometry]:
    """Geometries of a file, in its order: of a FeatureCollection, a list, a feature or a bare geometry.

    Raises
    ------
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError
        If the file cannot be read or is no GeoJSON.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    top = json.loads(raw)
    if isinstance(top, dict) and top.get("type") == "FeatureCollection":
        top = top.get("features")
        if not isinstance(top, list):
            raise ValueError("a FeatureCollection without a list of features")
    features = top if isinstance(top, list) else [top]
    return [geometry for number, node in enumerate(features, 1) for geometry in _simple(node, number)]


def _simple(node: Any, number: int) -> Iterator[Geometry]:
    if not isinstance(node, dict) or "type" not in node:
        raise ValueError(f"its object {number} is neither a feature nor a geometry")
    if node["type"] == "Feature":
        if "geometry" not in node:
            raise ValueError(f"its feature {number} has no geometry")
        about = node.get("properties") or {}
        if node["geometry"] is not None:
            for each in _simple(node["geometry"], number):
                yield replace(
                    each,
                    name=str(about.get("name") or ""),
                    class_name=_class_name(about.get("classification")),
                    object_type=str(about.get("objectType") or ""),
                    locked=about.get("isLocked") is True,
                )
    elif node["type"] in ("FeatureCollection", "GeometryCollection"):
        for each in node["features" if "features" in node else "geometries"]:
            yield from _simple(each, number)
    else:
        yield Geometry(node["type"], node["coordinates"], number)


def _class_name(classification: Any) -> str:
    """QuPath 0.4 to 0.7 write `name`, or `names` for a class within a class; older ones a plain string."""
    if isinstance(classification, dict):
        return str(classification.get("name") or ": ".join(classification.get("names") or []))
    return str(classification or "")
