from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg import compiled
from wsiseg.instances import instances, likely, mean_embeddings, plausible


def test_small_pieces_go_to_the_neighbour_they_touch_most():
    clusters = np.array([[1, 1, 1, 2, 2], [1, 1, 3, 2, 2], [1, 1, 1, 2, 2], [0, 0, 0, 0, 0], [0, 4, 0, 0, 0]])
    assert instances(clusters, min_area=2).tolist() == [
        [1, 1, 1, 2, 2],
        [1, 1, 1, 2, 2],
        [1, 1, 1, 2, 2],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_what_a_nucleus_encloses_becomes_its_own():
    ring = np.pad(np.zeros((3, 3), int), 2, constant_values=1)
    inner = ring.copy()
    inner[3, 3] = 2
    outside = np.pad(ring, 1)
    for clusters in (ring, inner, outside):
        found = instances(clusters, min_area=1)
        assert found.max() == 1
        assert found[3:5, 3:5].all()


@given(hnp.arrays(np.int8, (12, 11), elements=st.integers(0, 3)), st.integers(1, 6))
def test_instances_are_numbered_in_reading_order_and_a_gap_lies_between_two(clusters, least):
    found = instances(clusters.astype(np.int32), min_area=least)
    firsts = [np.flatnonzero(found == i)[0] for i in range(1, found.max() + 1)]
    assert firsts == sorted(firsts)
    gaps, count = ndimage.label(np.pad(found, 1) == 0)
    for gap in range(1, count + 1):
        beside = np.pad(found, 1)[ndimage.binary_dilation(gaps == gap)]
        assert gap == gaps[0, 0] or len(set(beside) - {0}) >= 2


@given(hnp.arrays(np.int8, (9, 8), elements=st.integers(0, 3)), st.integers(1, 6))
def test_instances_are_connected_large_enough_and_without_gaps(clusters, least):
    found = instances(clusters.astype(np.int32), min_area=least)
    assert set(np.unique(found)) - {0} == set(range(1, found.max() + 1))
    for i in range(1, found.max() + 1):
        assert ndimage.label(found == i)[1] == 1
        assert (found == i).sum() >= least


@pytest.mark.skipif(not compiled.AVAILABLE, reason="needs both ways to compare")
@given(hnp.arrays(np.int8, (9, 8), elements=st.integers(0, 3)), st.integers(1, 6))
def test_without_compiled_loops_the_same_instances(clusters, least):
    clusters = clusters.astype(np.int32)
    fast = instances(clusters, min_area=least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "AVAILABLE", False)
        np.testing.assert_array_equal(instances(clusters, min_area=least), fast)


def test_faint_nuclei_are_left_out():
    labels = np.array([[1, 1, 2], [3, 3, 2]], np.int32)
    prob = np.array([[0.9, 0.3, 0.4], [0.5, 0.5, 0.4]])
    assert likely(labels, prob, 0.5).tolist() == [[1, 1, 0], [2, 2, 0]]
    assert likely(labels, prob, 0.0).tolist() == labels.tolist()


def test_nuclei_as_pale_as_glass_are_left_out(monkeypatch):
    labels = np.array([[1, 1, 2], [3, 3, 2]], np.int32)
    red = np.array([[240, 200, 219], [200, 238, 219]], np.uint8)  # means 220, 219, 219: 0.147 and 0.152
    for available in {False, compiled.AVAILABLE}:
        monkeypatch.setattr(compiled, "AVAILABLE", available)
        dark = partial(plausible, labels, red)
        assert dark(min_area=2, least_density=0.15).tolist() == [[0, 0, 1], [2, 2, 1]]
        assert dark(min_area=1, least_density=0.0).tolist() == labels.tolist()
        assert not dark(min_area=3, least_density=0.0).any()
        assert not plausible(0 * labels, red, min_area=1, least_density=0.15).any()


def test_mean_embeddings():
    labels = np.array([[1, 1, 0], [2, 2, 2]])
    values = np.stack([np.arange(6.0).reshape(2, 3), np.ones((2, 3))])
    assert mean_embeddings(values, labels, 2).tolist() == [[0.5, 1], [4, 1]]
