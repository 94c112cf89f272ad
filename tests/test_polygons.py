import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_fill_holes
from skimage.draw import polygon2mask
from skimage.measure import label

from wsiseg import polygons
from wsiseg.polygons import exterior_rings, from_shapely, to_shapely, trace


def blobs(seed=0, size=200, n=25):
    """Touching ellipses, numbered without gaps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), int)
    for i in range(1, n + 1):
        (cy, cx), (a, b), t = rng.uniform(10, size - 10, 2), rng.uniform(6, 15, 2), rng.uniform(0, np.pi)
        u, v = (y - cy) * np.cos(t) + (x - cx) * np.sin(t), (x - cx) * np.cos(t) - (y - cy) * np.sin(t)
        labels[(u / a) ** 2 + (v / b) ** 2 < 1] = i
    pieces = label(labels, connectivity=1)
    large = np.bincount(pieces.ravel()) >= 30
    return label(np.where(large[pieces], pieces, 0), connectivity=1)


def test_a_square_is_traced_along_its_pixels_edges():
    corners, offsets = exterior_rings(np.pad(np.ones((3, 3), int), 2), 1)
    assert offsets.tolist() == [0, 12]
    assert corners.min(0).tolist() == [2, 2]
    assert corners.max(0).tolist() == [5, 5]


@given(hnp.arrays(np.int8, (7, 9), elements=st.integers(0, 3)))
def test_rings_enclose_the_pixels_of_the_largest_piece(values):
    pieces = label(values, background=0, connectivity=1)
    count = pieces.max()
    if not count:
        return
    corners, offsets = exterior_rings(pieces, count)
    for i, polygon in enumerate(to_shapely(corners, offsets), start=1):
        # Pieces are 4-connected, so what is outside is 8-connected: a hole that touches it is none.
        filled = binary_fill_holes(pieces == i, np.ones((3, 3)))
        pixels = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(filled)])
        assert polygon.area == filled.sum()
        assert shapely.make_valid(polygon).symmetric_difference(pixels).area == 0


@pytest.mark.parametrize("seed", range(3))
def test_simplified_outlines_keep_area_and_shape_with_few_corners(seed):
    labels = blobs(seed)
    vertices, offsets = trace(labels)
    assert len(offsets) == labels.max() + 1
    polygons = to_shapely(vertices, offsets)
    areas = np.bincount(labels.ravel())[1:]
    np.testing.assert_allclose(shapely.area(polygons), areas, rtol=0.02, atol=1)
    ious = []
    for i, polygon in enumerate(polygons, start=1):
        mask = polygon2mask(labels.shape, np.array(polygon.exterior.coords)[:, ::-1] - 0.5)
        ious.append((mask & (labels == i)).sum() / (mask | (labels == i)).sum())
    assert np.mean(ious) > 0.95
    assert 8 <= np.median(np.diff(offsets)) <= 30


@given(hnp.arrays(np.int8, (6, 6), elements=st.integers(0, 2)))
def test_every_label_has_a_ring_of_three_corners_or_more(values):
    pieces = label(values, background=0, connectivity=1)
    vertices, offsets = trace(pieces)
    assert len(offsets) == pieces.max() + 1
    assert (np.diff(offsets) >= 3).all()
    assert np.isfinite(vertices).all()


def test_nothing_gives_nothing():
    vertices, offsets = trace(np.zeros((5, 5), int))
    assert vertices.shape == (0, 2)
    assert offsets.tolist() == [0]


def test_a_gap_in_the_labels_is_an_error():
    with pytest.raises(ValueError, match="label 1 has no pixel"):
        trace(np.full((2, 2), 2))


def test_shapely_and_back():
    vertices, offsets = trace(blobs())
    again, same = from_shapely(to_shapely(vertices, offsets))
    np.testing.assert_array_equal(offsets, same)
    np.testing.assert_allclose(vertices, again)


def test_an_outline_that_simplifying_would_lose_is_simplified_with_more_care(monkeypatch):
    monkeypatch.setattr(polygons, "TOLERANCE", 2.0)
    pieces = label(np.random.default_rng(0).random((48, 48)) < 0.62, connectivity=1)
    rings = to_shapely(*exterior_rings(pieces, int(pieces.max())))
    careless = shapely.simplify(rings, 2.0, preserve_topology=False)
    assert shapely.is_empty(careless).any()
    outlines = to_shapely(*trace(pieces))
    assert shapely.is_valid(outlines).all()
    assert shapely.area(outlines).min() >= 1
