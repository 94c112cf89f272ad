import numpy as np
import pytest
import shapely

from wsiseg.measure import centroids, means, shape_columns, smallest_widths, stain_columns
from wsiseg.polygons import from_shapely


def columns_of(*polygons, mpp=1.0):
    return shape_columns(*from_shapely(np.array(polygons, object)), mpp=mpp)


def test_a_rectangle_in_microns():
    got = columns_of(shapely.box(0, 0, 40, 20), mpp=0.5)
    expected = {
        "Area µm^2": 200,
        "Length µm": 60,
        "Circularity": 4 * np.pi * 200 / 60**2,
        "Solidity": 1,
        "Max diameter µm": np.hypot(20, 10),
        "Min diameter µm": 10,
    }
    assert {name: pytest.approx(float(values[0]), rel=1e-5) for name, values in got.items()} == expected


def test_a_circle_is_round_and_an_l_is_not_solid():
    got = columns_of(
        shapely.Point(5, 5).buffer(3, quad_segs=64), shapely.box(0, 0, 4, 4) - shapely.box(2, 2, 4, 4)
    )
    assert got["Circularity"][0] > 0.99
    assert got["Solidity"][1] == pytest.approx(12 / 14)
    assert got["Min diameter µm"][0] == pytest.approx(6, rel=0.01)


def test_smallest_width_equals_a_search_over_all_directions():
    rng = np.random.default_rng(0)
    hulls = np.array(
        [shapely.MultiPoint(rng.normal(size=(12, 2)) * (5, 1)).convex_hull for _ in range(20)], object
    )
    angles = np.linspace(0, np.pi, 20_000)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    slow = [np.ptp(shapely.get_coordinates(h) @ directions, axis=0).min() for h in hulls]
    np.testing.assert_allclose(smallest_widths(hulls), slow, rtol=1e-3)


def test_centroid_area_and_mean_of_each_label():
    labels = np.array([[1, 1, 0], [0, 2, 2]])
    centre, area = centroids(labels, 2)
    assert centre.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert area.tolist() == [2, 2]
    assert means(np.arange(6.0).reshape(2, 3), labels, 2).tolist() == [0.5, 4.5]


def test_nothing_measured_is_empty():
    got = shape_columns(np.zeros((0, 2)), np.zeros(1, np.int64), mpp=1)
    assert all(len(values) == 0 for values in got.values())
    assert centroids(np.zeros((3, 3), int), 0)[1].shape == (0,)


def test_pure_stains_are_told_apart():
    unit = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    rgb = np.full((4, 4, 3), 255 * 10 ** -(0.8 * unit)).astype(np.uint8)
    got = stain_columns(rgb, np.ones((4, 4), int), 1)
    assert got["Hematoxylin: Mean"][0] == pytest.approx(0.8, abs=0.02)
    assert got["Eosin: Mean"][0] == pytest.approx(0, abs=0.02)
