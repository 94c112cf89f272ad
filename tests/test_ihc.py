"""Counting found points, on cases counted by hand; and whether the fixture is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ihc import Truth, centroids_of, read_image, read_truth, score_points, within

from wsiseg.geometry import Rect

WHOLE = (Rect(0, 0, 100, 100),)


def truth(*points: tuple[float, float], unsure: int = 0, regions: tuple[Rect, ...] = WHOLE) -> Truth:
    """Truth of which the last `unsure` points are not sure."""
    sure = np.arange(len(points)) < len(points) - unsure
    return Truth(np.array(points, float).reshape(-1, 2), sure, regions)


def test_every_point_found() -> None:
    points = truth((10, 10), (50, 50))
    score = score_points(points.points, points, radius=3)
    assert (score.recall, score.precision) == (1, 1)


def test_one_missed_one_false() -> None:
    score = score_points(np.array([[10.0, 12.0], [80.0, 80.0]]), truth((10, 10), (50, 50)), radius=3)
    assert (score.found, score.nuclei, score.right, score.predictions) == (1, 2, 1, 2)


def test_one_prediction_finds_one_point_only() -> None:
    score = score_points(np.array([[10.0, 11.0]]), truth((10, 10), (10, 12)), radius=3)
    assert (score.found, score.right) == (1, 1)


def test_two_predictions_on_one_point_are_one_right_one_false() -> None:
    score = score_points(np.array([[10.0, 9.0], [10.0, 11.0]]), truth((10, 10)), radius=3)
    assert (score.recall, score.precision) == (1, 0.5)


def test_matching_is_not_greedy() -> None:
    # The nearest pair is (second prediction, first point); taking it would lose the second point.
    score = score_points(np.array([[10.0, 7.5], [10.0, 11.0]]), truth((10, 10), (10, 13)), radius=3)
    assert score.found == 2


def test_a_point_inside_a_long_label_is_found_far_from_its_centroid() -> None:
    labels = np.zeros((20, 60), np.int32)
    labels[8:12, 5:55] = 1
    points = truth((10, 7))
    assert score_points(centroids_of(labels), points, radius=3).found == 0
    assert score_points(centroids_of(labels), points, radius=3, labels=labels).found == 1


def test_an_unsure_point_counts_for_nothing() -> None:
    points = truth((10, 10), (50, 50), unsure=1)
    missed = score_points(np.array([[10.0, 10.0]]), points, radius=3)
    met = score_points(np.array([[10.0, 10.0], [50.0, 50.0]]), points, radius=3)
    assert missed == met
    assert (met.nuclei, met.predictions) == (1, 1)


def test_a_sure_point_is_served_before_a_nearer_unsure_one() -> None:
    score = score_points(np.array([[10.0, 12.0]]), truth((10, 10), (10, 12), unsure=1), radius=3)
    assert (score.found, score.right) == (1, 1)


def test_outside_the_regions_nothing_is_counted_but_neighbours_match() -> None:
    points = truth((10, 10), (10, 21), regions=(Rect(0, 0, 20, 20),))
    score = score_points(np.array([[10.0, 10.0], [10.0, 19.5], [70.0, 70.0]]), points, radius=3)
    assert (score.found, score.nuclei, score.right, score.predictions) == (1, 1, 2, 2)


def test_no_prediction() -> None:
    score = score_points(centroids_of(np.zeros((9, 9), np.int32)), truth((1, 1)), radius=3)
    assert score.recall == 0
    assert np.isnan(score.precision)


def test_centroid_of_the_first_pixel_is_half_half() -> None:
    assert centroids_of(np.array([[1, 0], [0, 2]])).tolist() == [[0.5, 0.5], [1.5, 1.5]]


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_predictions_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = truth(*rng.uniform(0, 100, (20, 2)).tolist(), unsure=5, regions=(Rect(20, 20, 90, 90),))
    found = rng.uniform(0, 100, (25, 2))
    assert score_points(found, points, radius=8) == score_points(rng.permutation(found), points, radius=8)


def test_the_fixture_is_what_its_readme_says() -> None:
    fixture = read_truth()
    shape = read_image().shape[:2]
    assert Rect(0, 0, *shape).contains(fixture.points).all()
    assert (fixture.sure & within(fixture.points, fixture.regions)).sum() == 175
    overlaps = [a.intersect(b).area for a in fixture.regions for b in fixture.regions if a != b]
    assert max(overlaps) == 0
    distances = np.linalg.norm(fixture.points[:, None] - fixture.points, axis=2)
    assert distances[~np.eye(len(distances), dtype=bool)].min() > 3


def test_the_points_lie_on_bluer_pixels_than_their_surroundings() -> None:
    image = read_image().astype(float)
    blueness = image[..., 2] - image[..., 0]
    fixture = read_truth()
    y, x = np.floor(fixture.points[fixture.sure]).astype(int).T
    assert np.median(blueness[y, x]) > np.percentile(blueness, 75)


@pytest.mark.parametrize("radius", [3.0, 6.0])
def test_the_points_themselves_score_full_marks(radius: float) -> None:
    fixture = read_truth()
    score = score_points(fixture.points, fixture, radius=radius)
    assert (score.recall, score.precision) == (1, 1)
