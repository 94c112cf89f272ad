"""Nuclei drawn too wide are narrowed to what is dark in them, where surroundings are even; all others stay."""

import numpy as np
import pytest
from scipy import ndimage

from wsiseg import halos
from wsiseg.boundaries import edge_strength
from wsiseg.halos import without_halos

SHAPE = (96, 96)


def disc(radius, at=(48.0, 48.0)):
    y, x = np.indices(SHAPE)
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2


def seen(dark, *, noise=3.0, blur=0.8):
    """(H, W) red: 80 where it is dark, 225 elsewhere."""
    clean = ndimage.gaussian_filter(np.where(dark, 80.0, 225.0), blur)
    return np.clip(clean + np.random.default_rng(0).normal(0, noise, SHAPE), 0, 255).astype(np.uint8)


def narrowed(labels, red, least_edge=40.0):
    labels = labels.astype(np.int32)
    return without_halos(labels, red, edge_strength(red), least_edge=least_edge)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("radius", [13, 17, 21])
def test_a_disc_about_a_nucleus_in_pale_stroma_becomes_the_nucleus(radius):
    true = disc(7)
    assert iou(narrowed(disc(radius), seen(true)) == 1, true) > 0.75


def test_a_nucleus_off_the_middle_or_long_is_found_as_it_is():
    y, x = np.indices(SHAPE)
    true = ((y - 44) / 12) ** 2 + ((x - 54) / 4) ** 2 <= 1
    assert iou(narrowed(disc(18), seen(true)) == 1, true) > 0.75


def test_an_outline_on_an_edge_stays_even_where_a_nucleus_is_pale_inside():
    vesicular = disc(12) & ~disc(9) | disc(3)
    for true, red in ((disc(12), seen(disc(12))), (disc(12), seen(vesicular))):
        assert (narrowed(true, red) == true).all()


def test_a_pale_nucleus_keeps_its_outline_where_chromatin_lies_along_one_side():
    rough = disc(13)
    red = seen(disc(11) & ~disc(10, (48.0, 44.0)))
    assert edge_strength(red)[rough & ~disc(12)].mean() < 40
    assert (narrowed(rough, red) == rough).all()


def test_compactness_is_one_for_an_ellipse_and_low_for_a_crescent():
    y, x = np.indices(SHAPE)
    assert halos._compactness(((y - 44) / 22) ** 2 + ((x - 54) / 9) ** 2 <= 1) == pytest.approx(1, abs=0.02)
    assert halos._compactness(disc(12) & ~disc(11, (48.0, 43.0))) < 0.6


def test_where_surroundings_are_uneven_nothing_is_narrowed():
    rough, fold = disc(17), np.exp(-1.3 * np.linspace(0, 1, SHAPE[1]))  # tissue thickens from left to right
    uneven = (seen(disc(7)) * fold).astype(np.uint8)
    assert edge_strength(uneven)[rough & ~disc(15)].mean() < 40
    assert (narrowed(rough, uneven) == rough).all()
    assert (narrowed(rough, seen(disc(7)), least_edge=0.0) == rough).all()
    assert (narrowed(rough, np.full(SHAPE, 200, np.uint8)) == rough).all()


def test_neighbours_keep_what_is_theirs_and_no_number_is_lost():
    left, right = disc(7, (48.0, 25.0)), disc(7, (48.0, 66.0))
    rough = np.where(disc(16, (48.0, 25.0)), 1, 0)
    rough[disc(20, (48.0, 66.0)) & (rough == 0)] = 2
    rough[disc(2.2, (10.0, 10.0))] = 3  # too small to be narrowed
    found = narrowed(rough, seen(left | right | disc(1, (10.0, 10.0))))
    assert (found[found != rough] == 0).all()
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert iou(found == 1, left) > 0.8
    assert iou(found == 2, right) > 0.8


def test_a_crop_gives_what_the_whole_gives():
    nuclei, rough = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.int32)
    for number, at in enumerate([(25.0, 25.0), (60.0, 30.0), (30.0, 68.0), (68.0, 70.0)], start=1):
        nuclei |= disc(6, at)
        rough[disc(13, at)] = number
    red, part = seen(nuclei), np.s_[5:90, 4:91]
    whole, strength = narrowed(rough, red), edge_strength(red)
    assert (whole != rough).any()
    cut = without_halos(
        np.ascontiguousarray(rough[part]), red[part], np.ascontiguousarray(strength[part]), least_edge=40.0
    )
    np.testing.assert_array_equal(cut, whole[part])


def test_pieces_and_holes_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((23, 17)) < rng.uniform(0.3, 0.8)
        pieces, count = ndimage.label(mask)
        np.testing.assert_array_equal(halos._pieces(mask), pieces)
        np.testing.assert_array_equal(halos._filled(mask), ndimage.binary_fill_holes(mask))
        np.testing.assert_array_equal(halos._grown(mask), ndimage.binary_dilation(mask))
        np.testing.assert_array_equal(halos._shrunk(mask), ndimage.binary_erosion(mask))
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            np.testing.assert_array_equal(halos._largest(mask), pieces == sizes.argmax() + 1)


def test_an_empty_picture_and_a_full_one():
    for labels in (np.zeros(SHAPE, np.int32), np.ones(SHAPE, np.int32)):
        assert (narrowed(labels, np.full(SHAPE, 120, np.uint8)) == labels).all()
