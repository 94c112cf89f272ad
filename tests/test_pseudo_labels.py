import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.points import points_from_labels
from wsiseg.pseudo_labels import (
    BACKGROUND,
    NUCLEUS,
    UNLABELLED,
    adaptive_sigma,
    cluster_labels,
    instance_labels,
    voronoi_cells,
    voronoi_labels,
)
from wsiseg.recipes._encodings import local_cluster_labels
from wsiseg.recipes._point_targets import semantic_targets
from wsiseg.samples import Sample


@pytest.fixture
def dark_discs():
    """A pale image with dark discs of radius 8 and their centres."""
    centres = np.array([[20.5, 20.5], [20.5, 60.5], [60.5, 40.5]])
    y, x = np.mgrid[:80, :80] + 0.5
    truth = (np.hypot(y[None] - centres[:, :1, None], x[None] - centres[:, 1:, None]) < 8).any(0)
    noise = np.random.default_rng(0).normal(0, 4, (80, 80, 3))
    image = np.where(truth[..., None], [90, 60, 140], [225, 190, 215]) + noise
    return image.clip(0, 255).astype(np.uint8), centres, truth


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 14)), min_size=1, max_size=8, unique=True))
def test_voronoi_cells_hold_the_nearest_point(pixels):
    points = np.array(pixels) + 0.5
    cells = voronoi_cells(points, (20, 15))
    y, x = np.mgrid[:20, :15] + 0.5
    distance = np.hypot(y[None] - points[:, :1, None], x[None] - points[:, 1:, None])
    own = np.take_along_axis(distance, cells[None].astype(np.int64) - 1, axis=0)[0]
    np.testing.assert_allclose(own, distance.min(0))


def test_voronoi_labels_mark_points_and_edges_only(dark_discs):
    _, points, _ = dark_discs
    labels = voronoi_labels(points, (80, 80), radius=2)
    assert all(labels[int(y), int(x)] == NUCLEUS for y, x in points)
    assert labels[20, 40] == BACKGROUND  # half-way between the two upper points
    assert (labels == UNLABELLED).mean() > 0.8


def test_cluster_labels_find_dark_discs(dark_discs):
    image, points, truth = dark_discs
    labels = cluster_labels(image, points)
    assert truth[labels == NUCLEUS].mean() > 0.95
    assert (~truth)[labels == BACKGROUND].mean() > 0.95
    assert (labels == NUCLEUS)[truth].mean() > 0.7


def test_haematoxylin_alone_finds_dark_discs_that_distance_alone_does_not(dark_discs):
    image, points, truth = dark_discs
    near, dense = (cluster_labels(image, points, colour_weight=0, haematoxylin=h) == NUCLEUS for h in (0, 2))
    assert (near & truth).sum() / (near | truth).sum() < 0.6
    assert (dense & truth).sum() / (dense | truth).sum() > 0.8


def test_a_data_set_may_take_k_means_of_each_cell(dark_discs):
    image, points, _ = dark_discs
    sample = Sample("discs", image, 0.25, points)
    whole, local = (semantic_targets(sample, options, {})[0] for options in ({}, {"local": 1}))
    assert (whole != local).any()
    np.testing.assert_array_equal(local, local_cluster_labels(image, points))


def test_cluster_labels_of_no_point_are_unlabelled(dark_discs):
    image, _, _ = dark_discs
    assert (cluster_labels(image, np.zeros((0, 2))) == UNLABELLED).all()


def test_adaptive_sigma_is_that_of_all_neighbour_pairs():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
    differences = []
    for y in range(15):
        for x in range(15):
            for dy in range(-4, 5):
                for dx in range(-4, 5):
                    if (dy or dx) and 0 <= y + dy < 15 and 0 <= x + dx < 15:
                        differences.append(
                            np.linalg.norm(image[y, x].astype(float) - image[y + dy, x + dx].astype(float))
                        )
    assert adaptive_sigma(image, np.array([[7.5, 7.5]]), patch=60) == pytest.approx(
        np.std(differences), rel=1e-4
    )


def test_adaptive_sigma_grows_with_contrast(dark_discs):
    image, points, _ = dark_discs
    faint = (128 + (image.astype(float) - 128) / 4).astype(np.uint8)
    assert adaptive_sigma(image, points, patch=60) > 3 * adaptive_sigma(faint, points, patch=60)


def test_instances_are_cut_at_voronoi_edges_and_need_their_point():
    probability = np.zeros((20, 40))
    probability[5:15, 5:35] = 0.9  # two nuclei in one blob
    probability[17:19, 2:4] = 0.9  # too small
    labels = instance_labels(probability, np.array([[10.5, 12.5], [10.5, 28.5]]), min_area=20)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert labels[10, 6] == 1
    assert labels[10, 33] == 2
    assert labels[17, 2] == 0


def test_a_piece_without_its_point_stays_only_when_it_is_alone():
    probability = np.zeros((30, 30))
    probability[2:10, 2:10] = 0.9
    points = np.array([[20.5, 20.5]])
    assert instance_labels(probability, points).max() == 1
    probability[18:25, 18:25] = 0.9  # now another piece holds the point
    labels = instance_labels(probability, points)
    assert labels[20, 20] == 1
    assert labels[5, 5] == 0


def test_background_is_one_more_instance():
    probability = np.full((10, 10), 0.1)
    probability[3:8, 3:8] = 0.9
    probability[0] = 0.4
    labels = instance_labels(probability, np.array([[5.5, 5.5]]), background=0.3)
    assert labels[5, 5] == 1
    assert labels[9, 9] == 2
    assert (labels[0] == 0).all()


def test_points_are_box_centres():
    labels = np.zeros((8, 8), int)
    labels[1:4, 2:8] = 7
    assert points_from_labels(labels).tolist() == [[2.5, 5.0]]
