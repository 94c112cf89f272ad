import json

import pytest

from wsiseg.errors import PointsError
from wsiseg.points import check_classes, read_clicks


def geojson(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def clicked(kind, coordinates, name=None):
    properties = {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def test_points_and_multipoints_are_flipped_and_areas_left_out(tmp_path):
    area = clicked("Polygon", [[[0, 0], [9, 0], [9, 9], [0, 0]]])
    path = geojson(
        tmp_path / "a.geojson",
        clicked("Point", [1.5, 2]),
        area,
        clicked("MultiPoint", [[3, 4], [5, 6]], "Tumor"),
    )
    clicks = read_clicks(path)
    assert clicks.points.tolist() == [[2, 1.5], [4, 3], [6, 5]]
    assert clicks.classes == ("", "Tumor", "Tumor")
    assert clicks.places == ("feature 1", "feature 3, point 1", "feature 3, point 2")


def test_csv_with_and_without_classes(tmp_path):
    (tmp_path / "a.csv").write_text("class,x,y\nTumor,1,2\n,3.5,4\n")
    clicks = read_clicks(tmp_path / "a.csv")
    assert clicks.points.tolist() == [[2, 1], [4, 3.5]]
    assert clicks.classes == ("Tumor", "")
    (tmp_path / "b.csv").write_text("x,y\n")
    assert read_clicks(tmp_path / "b.csv").points.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3,left\n", r"a\.csv, line 3: no numbers"),
        ("x,y\n1,nan\n", "line 2: no numbers"),
        ("a,b\n1,2\n", "line 2: .*must name both columns"),
        ("x,y\n1,2\n5,5\n1,2\n1,2\n", r"line 4: the same point as line 2; .*\(2 such points in all\)"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(PointsError, match=message):
        read_clicks(tmp_path / "a.csv")


def test_wrong_geojson_is_named(tmp_path):
    path = geojson(tmp_path / "a.geojson", clicked("Point", [1, 2]), clicked("MultiPoint", [[3, 4], [1, 2]]))
    with pytest.raises(PointsError, match=r"a\.geojson, feature 2, point 2: the same point as feature 1"):
        read_clicks(path)
    path.write_text("no JSON")
    with pytest.raises(PointsError, match="cannot be read as GeoJSON"):
        read_clicks(path)


def test_masks_are_not_points(tmp_path):
    with pytest.raises(PointsError, match=r"mask\.png: a picture, .*--points-from-masks"):
        read_clicks(tmp_path / "mask.png")


def test_a_class_that_is_not_expected(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,Tumor\n3,4,Tumour\n")
    clicks = read_clicks(tmp_path / "a.csv")
    check_classes(clicks, ())
    with pytest.raises(PointsError, match="line 3: class 'Tumour' is none of 'Tumor'"):
        check_classes(clicks, ("Tumor",))
