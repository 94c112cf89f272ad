"""Filling outlines is the way back from tracing them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label

from wsiseg.fill import fill
from wsiseg.polygons import exterior_rings, trace


def filled(shape: tuple[int, int], vertices, offsets) -> np.ndarray:
    labels = np.zeros(shape, np.uint32)
    fill(labels, vertices, offsets, np.arange(1, len(offsets)))
    return labels


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)))
def test_outlines_along_pixels_give_the_labels_back(image: np.ndarray) -> None:
    """With holes filled, and where one piece lies in another's hole, the first one there."""
    pieces = label(image, background=0, connectivity=1)
    count = int(pieces.max(initial=0))
    expected = np.zeros(pieces.shape, np.uint32)
    for number in range(1, count + 1):
        whole = ndimage.binary_fill_holes(pieces == number, np.ones((3, 3)))
        expected[whole & (expected == 0)] = number
    if count:
        np.testing.assert_array_equal(filled(pieces.shape, *exterior_rings(pieces, count)), expected)


def test_traced_nuclei_keep_their_pixels() -> None:
    y, x = np.mgrid[:80, :80]
    labels = sum((i + 1) * (np.hypot(y - 20 - 20 * i, x - 30 - 10 * i) < 9) for i in range(3))
    again = filled(labels.shape, *trace(labels))
    # A simplified outline may stray by less than a pixel.
    assert (again != labels).sum() < 0.05 * (labels > 0).sum()


@pytest.mark.parametrize("by", [(-5, 3), (0, -20), (40, 40), (-3.25, 7.5)])
def test_what_lies_outside_is_cut_off(by: tuple[float, float]) -> None:
    square = np.array([[2.0, 2.0], [2.0, 9.0], [9.0, 9.0], [9.0, 2.0]]) + by
    y, x = np.mgrid[:16, :16] + 0.5
    inside = (y >= 2 + by[0]) & (y < 9 + by[0]) & (x >= 2 + by[1]) & (x < 9 + by[1])
    np.testing.assert_array_equal(filled((16, 16), square, np.array([0, 4])) > 0, inside)


def test_two_that_share_an_edge_share_no_pixel_and_leave_none() -> None:
    corners = np.array([[1.0, 1.0], [1.0, 9.0], [9.0, 9.0], [9.0, 1.0]])
    halves = np.concatenate([corners[[0, 1, 2]], corners[[0, 2, 3]]])
    whole = filled((10, 10), corners, np.array([0, 4])) > 0
    both = filled((10, 10), halves, np.array([0, 3, 6]))
    np.testing.assert_array_equal(both > 0, whole)
    swapped = filled((10, 10), halves[[3, 4, 5, 0, 1, 2]], np.array([0, 3, 6]))
    np.testing.assert_array_equal(both[whole] == 1, swapped[whole] == 2)
