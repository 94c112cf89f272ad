from itertools import combinations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import ConvexHull

from wsiseg import compiled
from wsiseg.deconvolution import H_DAB, H_E, Stains
from wsiseg.measure import (
    STATISTICS,
    cell_shape_columns,
    centroids,
    means,
    shape_columns,
    smallest_widths,
    stain_columns,
)
from wsiseg.nuclei import Rings
from wsiseg.polygons import from_shapely, trace


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


@pytest.mark.parametrize("stains", [H_E, H_DAB])
def test_pure_stains_are_told_apart(stains):
    for amounts in ((0.8, 0.0), (0.0, 0.5), (0.3, 0.6)):
        density = np.array(amounts) @ np.array(stains.vectors)
        rgb = np.full((4, 4, 3), np.rint(255 * 10**-density)).astype(np.uint8)
        got = stain_columns(rgb, np.ones((4, 4), int), 1, stains)
        for name, amount in zip(stains.names, amounts, strict=True):
            assert got[f"{name}: Mean"][0] == pytest.approx(amount, abs=0.02)


def brute_force(rgb, labels, stains):
    """Optical densities pixel by pixel, by solving for the two stains and what is at right angles to them."""
    vectors = np.array([*stains.vectors, np.cross(*stains.vectors)]).T
    density = np.maximum(0, -np.log10(np.maximum(rgb, 1) / np.array(stains.background)))
    amounts = np.linalg.solve(vectors, density.reshape(-1, 3).T).T.reshape(rgb.shape)[..., :2]
    found = {}
    for i, name in enumerate(stains.names):
        for number in range(1, labels.max() + 1):
            some = amounts[..., i][labels == number]
            of = (some.mean(), np.median(some), some.min(), some.max(), some.std(ddof=1))
            for statistic, value in zip(STATISTICS, of, strict=True):
                found.setdefault(f"{name}: {statistic}", []).append(value)
    return found


def test_stains_of_a_thousand_nuclei_are_those_of_every_pixel():
    rng = np.random.default_rng(0)
    labels = (np.arange(500)[:, None] // 15 * 34 + np.arange(500) // 15 + 1) * (rng.random((500, 500)) < 0.8)
    assert labels.max() == 34 * 34
    rgb = rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)
    stains = Stains(("Hematoxylin", "DAB"), H_DAB.vectors, (240.0, 235.0, 250.0))
    got = stain_columns(rgb, labels, labels.max(), stains, part="Cytoplasm")
    for name, values in brute_force(rgb, labels, stains).items():
        np.testing.assert_allclose(got[f"Cytoplasm: {name}"], values, rtol=1e-4, atol=1e-6)
    assert len(got) == 10


def test_a_label_without_a_pixel_has_no_density():
    got = stain_columns(np.zeros((2, 2, 3), np.uint8), np.array([[2, 2], [2, 2]]), 2, H_E)
    assert np.isnan(got["Eosin: Mean"]).tolist() == [True, False]
    assert got["Eosin: Std.Dev."][1] == pytest.approx(0, abs=1e-6)


def test_a_cell_is_measured_under_its_own_names():
    nucleus, cell = (
        Rings(*from_shapely(np.array([box], object)))
        for box in (shapely.box(0, 0, 10, 4), shapely.box(-2, -2, 12, 6))
    )
    got = cell_shape_columns(nucleus, cell, mpp=0.5)
    assert got["Nucleus: Area µm^2"][0] == 10
    assert got["Cell: Area µm^2"][0] == 28
    assert got["Nucleus/Cell area ratio"][0] == pytest.approx(10 / 28)
    assert len(got) == 13


def ellipses(count, *, step=56, seed=0):
    """(H, W) labels 1..count, each an ellipse in a square of its own; axes 6 to 22 pixels."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    labels = np.zeros((step * side, step * side), np.int32)
    y, x = np.mgrid[:step, :step] + 0.5
    for number in range(count):
        a, t = rng.uniform(8, 22), rng.uniform(0, np.pi)
        b = max(6, a * rng.uniform(0.4, 1))
        cy, cx = step / 2 + rng.uniform(-1, 1, 2)
        u, w = (
            (x - cx) * np.cos(t) + (y - cy) * np.sin(t),
            (y - cy) * np.cos(t) - (x - cx) * np.sin(t),
        )
        top, left = number // side * step, number % side * step
        labels[top : top + step, left : left + step][(u / a) ** 2 + (w / b) ** 2 < 1] = number + 1
    return labels


def test_shapes_of_a_thousand_nuclei_are_those_of_the_label_image():
    labels = ellipses(1000)
    vertices, offsets = trace(labels)
    got = shape_columns(vertices, offsets, mpp=0.25)
    outline = {name: np.zeros(1000) for name in got}
    pixels = {name: np.zeros(1000) for name in ("Area µm^2", "Min diameter µm")}
    angles = np.linspace(0, np.pi, 721)
    directions = np.stack([np.sin(angles), np.cos(angles)])
    for i, box in enumerate(ndimage.find_objects(labels)):
        y, x = np.nonzero(labels[box] == i + 1)
        middles = ((y + 0.5, x), (y + 0.5, x + 1), (y, x + 0.5), (y + 1, x + 0.5))
        edge = np.concatenate([np.stack(p, axis=1) for p in middles]) * 0.25
        pixels["Area µm^2"][i] = len(y) * 0.25**2
        pixels["Min diameter µm"][i] = np.ptp(edge @ directions, axis=0).min()
        ring = vertices[offsets[i] : offsets[i + 1]].astype(float) * 0.25
        steps = np.roll(ring, -1, axis=0) - ring
        length = np.hypot(*steps.T).sum()
        area = abs((ring[:, 1] * steps[:, 0] - ring[:, 0] * steps[:, 1]).sum()) / 2
        hull = ConvexHull(ring)
        outline["Area µm^2"][i], outline["Length µm"][i] = area, length
        outline["Circularity"][i], outline["Solidity"][i] = 4 * np.pi * area / length**2, area / hull.volume
        outline["Min diameter µm"][i] = np.ptp(ring @ directions, axis=0).min()
        outline["Max diameter µm"][i] = 2 * enclosing_radius(ring[hull.vertices])
    for name, values in outline.items():
        # A search over directions a quarter of a degree apart may miss the narrowest.
        np.testing.assert_allclose(got[name], values, rtol=2e-3, err_msg=name)
    np.testing.assert_allclose(got["Area µm^2"], pixels["Area µm^2"], rtol=0.01)
    for name, values in pixels.items():
        # Outlines are simplified within half a pixel, which for a single one of 12 pixels is more than a hundredth.
        ratio = got[name] / values
        assert np.median(ratio) == pytest.approx(1, abs=0.01)
        assert np.abs(ratio - 1).max() < 0.05


def enclosing_radius(points):
    """Of the smallest circle about some points: of all circles through two or three of them that hold all, the least."""
    a, b, c = (points[list(some)] for some in zip(*combinations(range(len(points)), 3), strict=True))
    u, v = b - a, c - a
    twice = 2 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        uu, vv = (u**2).sum(1), (v**2).sum(1)
        away = np.stack([v[:, 1] * uu - u[:, 1] * vv, u[:, 0] * vv - v[:, 0] * uu], axis=1) / twice[:, None]
    first, second = np.triu_indices(len(points), 1)
    centres = np.concatenate([a + away, (points[first] + points[second]) / 2])
    centres = centres[np.isfinite(centres).all(1)]
    return np.hypot(*(centres[:, None] - points).transpose(2, 0, 1)).max(1).min()


@pytest.mark.skipif(not compiled.AVAILABLE, reason="there is nothing to compare with")
@given(hnp.arrays(np.int32, (6, 9), elements=st.integers(0, 4)))
def test_centres_are_the_same_without_compiled_loops(labels):
    centre, area = centroids(labels, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "AVAILABLE", False)
        slow_centre, slow_area = centroids(labels, 4)
    np.testing.assert_allclose(centre, slow_centre)
    np.testing.assert_array_equal(area, slow_area)
