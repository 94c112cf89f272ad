"""Annotations of the Digital Slide Archive, which HistomicsUI shows: one document of closed polylines.

By the annotation schema of girder_large_image_annotation: corners (x, y, 0) in level-0 pixels; a nucleus's class is
its group and label, its measurements stand under `user`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import shapely

from wsiseg.export._about import About
from wsiseg.export._complete import complete
from wsiseg.export._features import DETECTION_PROBABILITY
from wsiseg.export._info import ExportInfo
from wsiseg.export._rows import Rows, rows
from wsiseg.nuclei import NucleusTable

SUFFIXES = (".dsa.json",)

ABOUT = About("annotation of the Digital Slide Archive", "HistomicsUI, Digital Slide Archive")

DIGITS = 2
"""Decimals of a corner, pixels: closer than anything was measured."""


def write(path: Path, tables: Iterable[NucleusTable], info: ExportInfo) -> int:
    """Write one annotation document, an element a line; returns the number of nuclei."""
    head = {
        "name": "Nuclei",
        "description": f"{info.provenance.get('slide', 'nuclei')}, found by wsiseg",
        "attributes": {"fingerprint": info.fingerprint, "mpp": info.mpp},
    }
    count = 0
    with complete(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "elements": [\n')
        for found in rows(tables):
            for text in elements(found, info):
                file.write(",\n" + text if count else text)
                count += 1
        file.write("\n]}\n")
    return count


def elements(found: Rows, info: ExportInfo) -> Iterator[str]:
    """One polyline a nucleus."""
    heads = [
        element_head(name, color) for name, color in zip(info.class_names, info.class_colors, strict=True)
    ]
    table = found.table
    names = [
        json.dumps(name, ensure_ascii=False) for name in ("nucleus", *table.columns, DETECTION_PROBABILITY)
    ]
    columns = [found.numbers.tolist(), *(v.tolist() for v in table.columns.values()), table.score.tolist()]
    for i, polygon in enumerate(found.polygons):
        corners = (np.round(shapely.get_coordinates(polygon)[:-1], DIGITS) + 0.0).tolist()  # no -0
        points = ",".join(f"[{x:.12g},{y:.12g},0]" for x, y in corners)
        values = ",".join(
            f"{name}:{column[i]:.6g}" if isinstance(column[i], float) else f"{name}:{column[i]}"
            for name, column in zip(names, columns, strict=True)
            if np.isfinite(column[i])
        )
        yield f'{heads[table.label[i]]},"points":[{points}],"user":{{{values}}}}}'


def element_head(name: str, color: tuple[int, int, int]) -> str:
    """What all nuclei of a class have in common: the beginning of their element."""
    rgb = ", ".join(map(str, color))
    common = {
        "type": "polyline",
        "closed": True,
        "group": name,
        "label": {"value": name},
        "lineColor": f"rgb({rgb})",
        "fillColor": f"rgba({rgb}, 0.2)",
        "lineWidth": 1,
    }
    return json.dumps(common, ensure_ascii=False, separators=(",", ":"))[:-1]
