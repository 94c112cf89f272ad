import gzip
import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsiseg.errors import RegionError
from wsiseg.regions import (
    Region,
    crossed,
    read_regions,
    region_contains,
    region_coverage,
    region_mask,
    trace_mask,
)

RING = [[10, 20], [110, 20], [110, 70], [10, 70], [10, 20]]
HOLE = [[30, 30], [50, 30], [50, 50], [30, 50], [30, 30]]
POLYGON = {"type": "Polygon", "coordinates": [RING, HOLE]}


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation", **properties}}


@pytest.mark.parametrize(
    "top",
    [
        {"type": "FeatureCollection", "features": [feature(POLYGON, name="Tumour")]},
        [feature(POLYGON, name="Tumour"), feature({"type": "Point", "coordinates": [1, 2]})],
        feature({"type": "MultiPolygon", "coordinates": [[RING, HOLE]]}, name="Tumour"),
        feature({"type": "GeometryCollection", "geometries": [POLYGON]}, name="Tumour"),
    ],
)
def test_polygons_are_read_from_every_top_level_and_flipped(tmp_path, top):
    (tmp_path / "a.geojson").write_text(json.dumps(top))
    (region,) = read_regions(tmp_path / "a.geojson")
    assert region.name == "Tumour"
    assert region.exterior.tolist() == [[20, 10], [20, 110], [70, 110], [70, 10]]
    assert len(region.holes) == 1


def test_compressed_and_bare(tmp_path):
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(json.dumps(POLYGON).encode()))
    assert len(read_regions(tmp_path / "a.geojson.gz")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}',
    ],
)
def test_what_holds_no_area_is_an_error(tmp_path, text):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(RegionError, match=r"a\.geojson"):
        read_regions(tmp_path / "a.geojson")


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(RegionError, match="absent"):
        read_regions(tmp_path / "absent.geojson")


def test_mask_and_points_agree_and_holes_are_out():
    region = Region(np.array(RING[:-1], float)[:, ::-1], (np.array(HOLE[:-1], float)[:, ::-1],))
    mask = region_mask([region], (50, 60), scale=2.0)
    assert mask.sum() == (100 * 50 - 20 * 20) / 4
    y, x = np.mgrid[:50, :60]
    centres = (np.stack([y, x], -1).reshape(-1, 2) + 0.5) * 2.0
    np.testing.assert_array_equal(region_contains([region], centres).reshape(50, 60), mask)


corners = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=7, unique=True)


@given(corners)
def test_inside_is_where_an_odd_number_of_edges_lies_on_one_side(outer):
    ring = np.array(outer, float)  # a hand may cross its own line
    points = np.random.default_rng(0).uniform(-2, 32, (60, 2))
    odd = np.zeros(60, bool)
    for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        for n, (y, x) in enumerate(points):
            odd[n] ^= (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    assert region_contains([Region(ring)], points).tolist() == odd.tolist()


def test_of_two_regions_that_meet_one_has_a_point_between_them():
    left, right = (Region(np.array([[0, x], [0, x + 4], [6, x + 4], [6, x]], float)) for x in (0, 4))
    points = np.stack(np.meshgrid(np.arange(6.0), np.arange(8.0), indexing="ij"), -1).reshape(-1, 2)
    shares = [region_contains([region], points) for region in (left, right)]
    assert [share.sum() for share in shares] == [24, 24]
    assert (shares[0] ^ shares[1]).all()


@given(corners, st.floats(1, 12))
def test_coverage_adds_up_to_the_area(outer, scale):
    ring = shapely.MultiPoint(outer).convex_hull
    if ring.geom_type != "Polygon":
        return
    region = Region(np.array(ring.exterior.coords)[:-1])
    cover = region_coverage([region], (32, 32), scale=scale)
    assert 0 <= cover.min() <= cover.max() <= 1
    # A pixel on the edge is right to a few parts of 64.
    on_edge = crossed([region], (32, 32), scale=scale)
    assert abs(cover.sum() * scale**2 - ring.area) <= (0.1 * on_edge.sum() + 0.1) * scale**2
    np.testing.assert_array_equal(cover[~on_edge], region_mask([region], (32, 32), scale=scale)[~on_edge])


def test_a_region_far_larger_than_the_slide_covers_it_at_no_cost():
    region = Region(np.array([[-1e12, -1e12], [1e12, -1e12], [1e12, 1e12], [-1e12, 1e12]]))
    assert (region_coverage([region], (8, 9), scale=16) == 1).all()
    assert not crossed([region], (8, 9), scale=16).any()


@given(hnp.arrays(bool, (8, 9)))
def test_a_traced_mask_covers_what_the_mask_does(mask):
    regions = trace_mask(mask, scale=4.0)
    np.testing.assert_array_equal(region_mask(regions, mask.shape, scale=4.0), mask)
