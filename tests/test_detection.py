import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.detection import concordance, match_points, pooled


def points(*pairs):
    return np.array(pairs, float).reshape(-1, 2)


def test_hand_counted():
    """Two found, 3 and 4 pixels off; one missed; one found twice, and one where there is nothing."""
    truth = points((10, 10), (10, 50), (50, 10))
    found = points((13, 10), (10, 54), (10, 58), (90, 90))
    matches = match_points(truth, found, radius=11)
    assert (matches.tp, matches.fp, matches.fn) == (2, 2, 1)
    assert matches.precision == pytest.approx(2 / 4)
    assert matches.recall == pytest.approx(2 / 3)
    assert matches.f1 == pytest.approx(4 / 7)
    assert matches.mean_distance == pytest.approx(3.5)
    assert matches.distance_deviation == pytest.approx(0.5)
    assert (matches.truth.tolist(), matches.found.tolist()) == ([0, 1], [0, 1])


def test_the_circle_is_open():
    assert match_points(points((0, 0)), points((0, 11)), radius=11).tp == 0
    assert match_points(points((0, 0)), points((0, 10.9)), radius=11).tp == 1


def test_of_several_detections_the_closest_is_the_match_whatever_their_order():
    for found in (points((5, 5), (1, 0)), points((1, 0), (5, 5))):
        matches = match_points(points((0, 0)), found, radius=11)
        assert (matches.distance.tolist(), matches.fp) == ([1.0], 1)


def test_a_detection_serves_one_true_point():
    truth = points((0, 0), (0, 10))
    assert match_points(truth, points((0, 4)), radius=11).fn == 1
    # The closer pair is made first: the second detection is left with the true point that is left.
    both = match_points(truth, points((0, 4), (0, -4)), radius=11)
    assert (both.distance.tolist(), both.fp, both.fn) == ([4.0], 1, 1)
    both = match_points(truth, points((0, 4), (0, 1)), radius=11)
    assert both.distance.tolist() == [1.0, 6.0]


def test_nothing_to_detect_and_nothing_detected():
    none = match_points(points(), points(), radius=11)
    assert (none.precision, none.recall, none.f1) == (1.0, 1.0, 1.0)
    assert math.isnan(none.mean_distance)
    assert match_points(points((1, 1)), points(), radius=11).recall == 0.0
    assert match_points(points(), points((1, 1)), radius=11).precision == 0.0


def test_many_images_are_counted_together():
    """F1 of the pool, not the mean of F1s: 11 of 12 and none of one."""
    row = [(0, 30 * i) for i in range(11)]
    first = match_points(points(*row, (300, 300)), points(*((y + 2, x) for y, x in row)), radius=11)
    second = match_points(points((0, 0)), points(), radius=11)
    every = pooled([first, second])
    assert (every.tp, every.fp, every.fn) == (11, 0, 2)
    assert every.f1 == pytest.approx(22 / 24)
    assert (every.mean_distance, every.distance_deviation) == (2.0, 0.0)
    third = pooled([second, first])
    assert third.truth.tolist() == [row + 1 for row in first.truth]


@given(st.integers(0, 2**32 - 1))
def test_shuffled_points_match_alike(seed):
    rng = np.random.default_rng(seed)
    truth, found = rng.uniform(0, 60, (12, 2)), rng.uniform(0, 60, (15, 2))
    one = match_points(truth, found, radius=11)
    other = match_points(rng.permutation(truth), rng.permutation(found), radius=11)
    assert sorted(one.distance) == pytest.approx(sorted(other.distance))
    assert one.tp + one.fn == 12
    assert one.tp + one.fp == 15


def test_concordance_by_hand():
    # Means 2 and 3, variances 2/3 and 8/3, covariance 4/3: 8/3 / (10/3 + 1).
    assert concordance(np.array([1, 2, 3]), np.array([1, 3, 5])) == pytest.approx((8 / 3) / (13 / 3))
    assert concordance(np.array([4, 9, 1]), np.array([4, 9, 1])) == 1
    assert concordance(np.array([1, 2, 3]), np.array([3, 2, 1])) == -1
    assert concordance(np.array([1, 2, 3]), np.array([5, 5, 5])) == 0
    assert np.isnan(concordance(np.array([5, 5]), np.array([5, 5])))
