"""GeoJSON features that every QuPath from 0.4 on reads: shared by the GeoJSON exporters.

The rules, and how they were found, are in the import contract (`wsiseg.qupath` checks it).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import shapely

from wsiseg.ahead import ahead
from wsiseg.export._info import ExportInfo
from wsiseg.export._outlines import GRID, geometries
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.regions import Region

DETECTION_PROBABILITY = "Detection probability"


def collection(tables: Iterable[NucleusTable], info: ExportInfo) -> Iterator[tuple[str, int]]:
    """(piece of text, nuclei in it) of one FeatureCollection, a feature a line."""
    before = '{"type":"FeatureCollection","features":[\n'
    for text in region_features(info):
        yield before + text, 0
        before = ",\n"
    for drawn in ahead(map(Drawn.of, tables)):
        for text in nucleus_features(drawn, info):
            yield before + text, 1
            before = ",\n"
    yield ("\n]}\n" if before == ",\n" else before + "]}\n"), 0


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Some nuclei, and GeoJSON of the outlines that come to something, by the nucleus's number in the table."""

    table: NucleusTable
    nuclei: dict[int, str]
    cells: dict[int, str] | None

    @classmethod
    def of(cls, table: NucleusTable) -> Drawn:
        """With outlines as QuPath reads them."""
        cells = None if table.cells is None else geometries(table.cells)
        return cls(table, geometries(Rings(table.vertices, table.offsets)), cells)


def nucleus_features(drawn: Drawn, info: ExportInfo) -> Iterator[str]:
    """One detection a nucleus, in the order of the table; those whose outline comes to nothing are left out.

    Where there are cells, it is one cell a nucleus, with the nucleus in it.
    """
    table = drawn.table
    classes = [
        json.dumps({"name": name, "color": list(color)}, ensure_ascii=False, separators=(",", ":"))
        for name, color in zip(info.class_names, info.class_colors, strict=True)
    ]
    names = [json.dumps(name, ensure_ascii=False) for name in (*table.columns, DETECTION_PROBABILITY)]
    measured = [*table.columns.values(), table.score]
    columns = [(name, v.tolist(), np.isfinite(v).tolist()) for name, v in zip(names, measured, strict=True)]
    space, taken = uuid5(NAMESPACE_URL, f"wsiseg:{info.fingerprint}"), dict[UUID, int]()
    for i, outline in drawn.nuclei.items():
        y, x = table.centroid[i]
        values = ",".join([f"{name}:{column[i]:.4g}" for name, column, finite in columns if finite[i]])
        shape, kind = f'"geometry":{outline}', "detection"
        if drawn.cells is not None:
            around = drawn.cells.get(i, outline)
            shape, kind = f'"geometry":{around},"nucleusGeometry":{outline}', "cell"
        yield (
            f'{{"type":"Feature","id":"{identity(space, y, x, taken)}",{shape},'
            f'"properties":{{"objectType":"{kind}","classification":{classes[table.label[i]]},'
            f'"measurements":{{{values}}}}}}}'
        )


def identity(space: UUID, y: float, x: float, taken: dict[UUID, int]) -> UUID:
    """The same for the same nucleus of the same slide, so that importing twice is noticed."""
    name = f"{y:.2f},{x:.2f}"
    first = uuid5(space, name)
    taken[first] = taken.get(first, 0) + 1
    return first if taken[first] == 1 else uuid5(space, f"{name},{taken[first]}")


def region_features(info: ExportInfo) -> Iterator[str]:
    """One locked annotation for each polygon of what was processed."""
    space = uuid5(NAMESPACE_URL, f"wsiseg:{info.fingerprint}:regions")
    number = 0
    for region in info.regions:
        for polygon in region_polygons(region):
            properties: dict[str, Any] = {"objectType": "annotation", "isLocked": True}
            if region.name:
                properties["name"] = region.name
            text = json.dumps(properties, ensure_ascii=False, separators=(",", ":"))
            yield (
                f'{{"type":"Feature","id":"{uuid5(space, str(number))}","geometry":{geometry(polygon)},'
                f'"properties":{text}}}'
            )
            number += 1


def region_polygons(region: Region) -> list[shapely.Polygon]:
    """A region's valid polygons on the grid, holes kept."""
    drawn = shapely.Polygon(region.exterior[:, ::-1], [hole[:, ::-1] for hole in region.holes])
    shape = shapely.set_precision(shapely.make_valid(drawn), GRID)
    parts = shapely.get_parts(shapely.get_parts(shape))
    return [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]


def geometry(polygon: shapely.Polygon) -> str:
    """GeoJSON of a polygon; whole numbers without a point."""
    text: str = shapely.to_geojson(polygon)
    return text.replace(".0,", ",").replace(".0]", "]")
