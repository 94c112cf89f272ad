import gzip
import json

import pytest

from wsiseg.features import read_geometries

POINT = {"type": "Point", "coordinates": [1, 2]}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.mark.parametrize(
    ("classification", "name"),
    [({"name": "Tumor"}, "Tumor"), ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"), ("Other", "Other")],
)
def test_classes_as_qupath_versions_write_them(tmp_path, classification, name):
    (tmp_path / "a.json").write_text(json.dumps(feature(POINT, name="A", classification=classification)))
    (found,) = read_geometries(tmp_path / "a.json")
    assert (found.kind, found.coordinates, found.name, found.class_name) == ("Point", [1, 2], "A", name)


def test_features_are_counted_from_one_and_an_empty_geometry_is_none(tmp_path):
    nested = {"type": "GeometryCollection", "geometries": [POINT, POINT]}
    top = {"type": "FeatureCollection", "features": [feature(None), feature(POINT), feature(nested)]}
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(top).encode()))
    assert [g.feature for g in read_geometries(tmp_path / "a.geojson.gz")] == [2, 3, 3]
