import copy
import gzip
import json
import re
import zipfile

import pytest

from wsiseg.errors import ContractError
from wsiseg.qupath import check_file

SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
GOOD = {
    "type": "Feature",
    "id": "11111111-1111-4111-8111-111111111111",
    "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
    "properties": {
        "objectType": "detection",
        "classification": {"name": "Nucleus", "color": [200, 60, 60]},
        "measurements": {"Area µm^2": 48.6},
    },
}


def problems(tmp_path, text, name="a.geojson"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return check_file(path)


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def changed(path, value):
    """GOOD with the value at `path` (keys joined by dots) replaced; a missing value deletes it."""
    feature = {**copy.deepcopy(GOOD), "id": "22222222-2222-4222-8222-222222222222"}
    *parents, last = path.split(".")
    node = feature
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return feature


def test_a_good_feature_has_no_problem(tmp_path):
    assert problems(tmp_path, collection(GOOD)) == ()
    assert problems(tmp_path, json.dumps([GOOD])) == ()
    assert problems(tmp_path, collection()) == ()


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("id", None, "id is null"),
        ("id", "nucleus-1", "no UUID"),
        ("geometry", None, "geometry is null"),
        ("geometry", ..., "no geometry"),
        ("properties", None, "properties is null"),
        ("properties.name", None, "name is null"),
        ("properties.objectType", ..., "objectType"),
        ("properties.objectType", "nucleus", "objectType"),
        ("properties.color", "red", "color must be"),
        ("properties.classification", {"name": "X"}, "must have a color"),
        ("properties.classification", {"name": "X", "color": [1, 2]}, "must have a color"),
        ("properties.classification", {"color": [1, 2, 3]}, "must have a name"),
        ("nucleusGeometry", {"type": "Polygon", "coordinates": [SQUARE]}, "only an objectType 'cell'"),
        ("properties.measurements", {"a": "large"}, "only numbers"),
        ("properties.measurements", {"a": None}, "only numbers"),
        ("properties.measurements", {"a": True}, "only numbers"),
        ("properties.measurements", [1], "map of names"),
        ("properties.measurements", {"a": 16_777_217}, "float32"),
        ("properties.measurements", {str(i): 1 for i in range(16)}, "slow reading"),
        ("geometry", {"type": "MultiPolygon", "coordinates": [[SQUARE]]}, "MultiPolygon of one part"),
        ("geometry", {"type": "GeometryCollection", "geometries": []}, "GeometryCollection"),
        ("geometry.coordinates", [], "without coordinates"),
        ("geometry.coordinates", [SQUARE[:-1]], "not closed"),
        ("geometry.coordinates", [[[0, 0], [4, 0], [0, 0]]], "fewer than 3"),
        ("geometry.coordinates", [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]], "invalid"),
        ("geometry.coordinates", [[[0, 0], [4, 0], [4, 4], [0.004, 2], [0, 4], [0, 0]]], "invalid|closer"),
        ("geometry.coordinates", [[[0, 0], ["4", 0], [4, 4], [0, 0]]], "finite numbers"),
    ],
)
def test_each_rule_is_seen(tmp_path, path, value, rule):
    (found,) = problems(tmp_path, collection(GOOD, changed(path, value)))
    assert re.search(rule, found.rule)
    assert found.feature.startswith("feature 1")


@pytest.mark.parametrize(
    "text",
    [
        collection(GOOD).replace("]}", "],}"),
        collection(changed("properties.measurements", {"a": float("nan")})),
        collection(changed("properties.measurements", {"a": float("inf")})),
        json.dumps(GOOD) + "\n" + json.dumps(GOOD),
        "\x1e" + json.dumps(GOOD),
        "",
    ],
)
def test_what_is_no_json_is_one_problem(tmp_path, text):
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert "not JSON" in found[0].rule


def test_other_tops_are_refused(tmp_path):
    assert "FeatureCollection" in problems(tmp_path, '{"type": "Topology"}')[0].rule
    assert "no list" in problems(tmp_path, '{"type": "FeatureCollection"}')[0].rule
    assert "no object" in problems(tmp_path, "[3]")[0].rule


def test_an_identity_may_not_come_twice(tmp_path):
    found = problems(tmp_path, collection(GOOD, GOOD))
    assert [p.feature for p in found] == [f"feature 1 ({GOOD['id']})"]
    assert "earlier" in found[0].rule


def test_annotations_by_the_ten_thousand_are_slow(tmp_path):
    annotation = changed("properties", {"objectType": "annotation"})
    del annotation["id"]
    found = problems(tmp_path, collection(*[annotation] * 10_001))
    assert [p.severity for p in found] == ["warning"]


def test_a_cell_may_have_a_nucleus_and_many_measurements_are_said_once(tmp_path):
    cells = [changed("properties.measurements", {str(i): 1 for i in range(36)}) for _ in range(3)]
    for number, cell in enumerate(cells):
        cell["id"] = f"2222222{number}-2222-4222-8222-222222222222"
        cell["nucleusGeometry"] = cell["geometry"]
        cell["properties"]["objectType"] = "cell"
    (found,) = problems(tmp_path, collection(*cells))
    assert found.rule.startswith("36 measurements slow reading")
    cells[1]["nucleusGeometry"] = {"type": "Polygon", "coordinates": [SQUARE[:-1]]}
    assert "not closed" in problems(tmp_path, collection(*cells))[1].rule


def test_children_are_checked(tmp_path):
    parent = changed("properties.childObjects", [changed("properties.name", None)])
    parent["id"] = GOOD["id"]
    assert problems(tmp_path, collection(parent))[0].feature.startswith("feature 0.0")


def test_gz_and_zip(tmp_path):
    bad = changed("properties.name", None)
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(collection(bad).encode()))
    assert len(check_file(tmp_path / "a.geojson.gz")) == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.geojson", collection(GOOD))
        archive.writestr("two.geojson", collection(bad))
        archive.writestr("notes.txt", "hello")
    found = check_file(tmp_path / "a.zip")
    assert [p.feature.split(":")[0] for p in found] == ["two.geojson", "notes.txt"]


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ContractError, match="opens"):
        check_file(tmp_path / "a.csv")
    with pytest.raises(ContractError, match="cannot be read"):
        check_file(tmp_path / "a.geojson")
    (tmp_path / "b.zip").write_text("no zip")
    with pytest.raises(ContractError, match="cannot be read"):
        check_file(tmp_path / "b.zip")
