"""Outlines read from a result, against what was written into it."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsiseg import outlines
from wsiseg.errors import ContractError, InputError
from wsiseg.geometry import Rect
from wsiseg.outlines import NO_CLASS, features, read_outlines

RED, BLUE = [200, 0, 0], [0, 0, 200]


def feature(y: int, x: int, *, color: list[int] | None = None, kind: str = "detection") -> dict[str, Any]:
    """A square of 4 pixels a side whose upper left corner is (y, x)."""
    ring = [[x, y], [x + 4, y], [x + 4, y + 4], [x, y + 4], [x, y]]
    properties: dict[str, Any] = {"objectType": kind}
    if color is not None:
        properties["classification"] = {"name": "Nucleus", "color": color}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def collection(*members: dict[str, Any]) -> str:
    """The text of a FeatureCollection."""
    return json.dumps({"type": "FeatureCollection", "features": members})


def write_plain(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_gz(path: Path, text: str) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


def write_zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.geojson", text)
        archive.writestr("2.geojson", collection(feature(90, 90, color=BLUE)))


@pytest.mark.parametrize(
    ("name", "write", "count"),
    [
        ("a.geojson", write_plain, 1),
        ("a.json", write_plain, 1),
        ("a.geojson.gz", write_gz, 1),
        ("a.zip", write_zip, 2),
    ],
)
def test_every_suffix(tmp_path: Path, name: str, write: Callable[[Path, str], None], count: int) -> None:
    write(tmp_path / name, collection(feature(10, 20, color=BLUE)))
    found = read_outlines(tmp_path / name)
    assert set(found) == {(0, 0, 200)}
    assert len(found[0, 0, 200]) == count
    assert found[0, 0, 200][0].tolist() == [[10, 20], [10, 24], [14, 24], [14, 20], [10, 20]]


def test_colours_regions_and_annotations(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    members = [
        feature(0, 0, color=RED),
        feature(50, 0, color=RED),
        feature(0, 2),
        feature(0, 0, kind="annotation"),
    ]
    path.write_text(collection(*members))
    assert {k: len(v) for k, v in read_outlines(path).items()} == {(200, 0, 0): 2, NO_CLASS: 1}
    assert {k: len(v) for k, v in read_outlines(path, Rect(45, 0, 60, 9)).items()} == {(200, 0, 0): 1}
    assert read_outlines(path, Rect(500, 500, 600, 600)) == {}


def test_a_bare_array_a_hole_and_a_multipolygon(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    ring = feature(0, 0)["geometry"]["coordinates"][0]
    both = {"type": "MultiPolygon", "coordinates": [[ring, ring], [ring]]}
    path.write_text(
        json.dumps([{"type": "Feature", "geometry": both}, {"type": "Feature", "geometry": None}])
    )
    assert len(read_outlines(path)[NO_CLASS]) == 3


@pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
def test_where_the_text_is_cut_into_chunks_does_not_matter(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "CHUNK", chunk)
    members = [feature(i, 2 * i, color=RED) for i in range(20)]
    assert list(features(io.StringIO(json.dumps({"features": members}, indent=1)))) == members
    assert list(features(io.StringIO(json.dumps(members)))) == members
    assert list(features(io.StringIO('{"features": []}'))) == []


def test_a_hundred_thousand_nuclei_are_read_and_few_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    one = json.dumps(feature(0, 0))
    path.write_text('{"features":[' + ",".join([one] * 100_000 + [json.dumps(feature(99, 99))]) + "]}")
    assert len(read_outlines(path, Rect(90, 90, 120, 120))[NO_CLASS]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"features": [{"geometry": ',
        '{"features": [1]}',
        '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[["a", 1]]]}}]}',
        '{"features": [{"properties": {"classification": {"name": "X", "color": 7}}}]}',
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.geojson"
    path.write_text(text)
    with pytest.raises(ContractError, match=r"broken\.geojson: not a whole GeoJSON file"):
        read_outlines(path)


@pytest.mark.parametrize("name", ["cut.geojson.gz", "cut.zip"])
def test_a_truncated_archive_is_named(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole{name}"
    (write_zip if name.endswith("zip") else write_gz)(whole, collection(*[feature(i, i) for i in range(500)]))
    (tmp_path / name).write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ContractError, match=r"cut\."):
        read_outlines(tmp_path / name)


def test_no_such_file_and_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.geojson: cannot be read \(No such file"):
        read_outlines(tmp_path / "none.geojson")
    with pytest.raises(InputError, match=r"a\.csv: outlines are read from \.geojson"):
        read_outlines(tmp_path / "a.csv")


def test_coordinates_beyond_two_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    member = feature(3, 5)
    member["geometry"]["coordinates"] = [[[x, y, 0] for x, y in member["geometry"]["coordinates"][0]]]
    path.write_text(collection(member))
    assert read_outlines(path)[NO_CLASS][0].shape == (5, 2)
    assert np.array_equal(read_outlines(path)[NO_CLASS][0][0], [3, 5])
