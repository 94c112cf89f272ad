import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg import boundaries, compiled
from wsiseg.boundaries import edge_strength, settled
from wsiseg.flips import View
from wsiseg.maps import Maps


def disc(radius, shape=(64, 64), at=(32.0, 32.0)):
    y, x = np.indices(shape)
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2


def drawn(nuclei, dark=90, light=230):
    """(H, W) red of dark nuclei on light ground, a little blurred."""
    return np.clip(ndimage.gaussian_filter(np.where(nuclei, dark, light).astype(float), 0.8), 0, 255).astype(
        np.uint8
    )


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("radius", [9.0, 9.8, 10.9, 12.5])
def test_an_outline_that_is_a_little_off_finds_the_edge(radius):
    true, rough = disc(11.5), disc(radius).astype(np.int32)
    found = settled(rough, edge_strength(drawn(true)), inner=1, outer=3)
    assert iou(found == 1, true) > 0.92


def test_where_there_is_no_edge_an_outline_is_made_smooth_and_stays():
    rough = disc(11.5).astype(np.int32)
    rough[32, 44:50] = 1  # a spike
    found = settled(rough, np.zeros(rough.shape, np.uint8), inner=0, outer=0)
    assert not found[32, 46:].any()
    assert iou(found == 1, disc(11.5)) > 0.97


def test_two_nuclei_side_by_side_part_where_the_light_gap_is():
    nuclei = np.where(disc(9, at=(32.0, 21.0)), 1, 0) + np.where(disc(9, at=(32.0, 41.0)), 2, 0)
    rough = np.where(disc(9, at=(32.0, 21.0)), 1, 0).astype(np.int32)
    rough[disc(11, at=(32.0, 41.0)) & (rough == 0)] = 2  # one of them reaches into the gap
    found = settled(rough, edge_strength(drawn(nuclei > 0)), inner=2, outer=2)
    for label in (1, 2):
        assert iou(found == label, nuclei == label) > 0.93


def test_of_a_nucleus_that_falls_apart_the_largest_piece_stays_and_a_thread_is_none():
    labels = np.zeros((40, 60), np.int32)
    labels[5:25, 5:25] = 1
    labels[14, 25:32] = 1
    labels[10:20, 32:40] = 1
    labels[30:32, 5:55] = 2
    found = settled(labels, np.zeros(labels.shape, np.uint8), inner=0, outer=0)
    assert set(np.unique(found)) == {0, 1}
    assert found[10, 10] == 1
    assert not found[:, 30:].any()


def watershed(labels, strength, inner, outer):
    """Pixel by pixel, with a heap of (strength, turn)."""
    shape, beside = labels.shape, ((-1, 0), (0, -1), (0, 1), (1, 0))

    def around(y, x):
        return [(y + a, x + b) for a, b in beside if 0 <= y + a < shape[0] and 0 <= x + b < shape[1]]

    def near(y, x, steps, wanted):
        found = {(y, x)}
        for _ in range(steps):
            found |= {q for p in found for q in around(*p)}
        return any(wanted(*p) for p in found)

    unlike = {p for p in np.ndindex(shape) if any(labels[q] != labels[p] for q in around(*p))}
    out = labels.copy()
    for y, x in np.ndindex(shape):
        if labels[y, x]:
            opened = inner and near(y, x, inner - 1, lambda *p: p in unlike)
        else:
            opened = near(y, x, outer, lambda *p: labels[p] > 0)
        out[y, x] = -1 if opened else labels[y, x]
    turn = itertools.count()
    queue = [
        (int(strength[p]), next(turn), p)
        for p in np.ndindex(shape)
        if out[p] >= 0 and any(out[q] < 0 for q in around(*p))
    ]
    heapq.heapify(queue)
    while queue:
        _, _, p = heapq.heappop(queue)
        for q in around(*p):
            if out[q] < 0:
                out[q] = out[p]
                heapq.heappush(queue, (int(strength[q]), next(turn), q))
    return np.where(out < 0, labels, out)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.int8, (5, 6), elements=st.integers(0, 3)),
    hnp.arrays(np.uint8, (15, 18), elements=st.integers(0, 4)),
    st.integers(0, 2),
    st.integers(0, 3),
)
def test_the_flood_is_the_watershed_pixel_by_pixel(coarse, strength, inner, outer):
    labels = coarse.repeat(3, axis=0).repeat(3, axis=1).astype(np.int32)
    flooded = boundaries._flood(boundaries._opened(labels, inner, outer), labels, strength)
    np.testing.assert_array_equal(flooded, watershed(labels, strength, inner, outer))


def tissue(seed, shape=(160, 190)):
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), 5)
    labels = ndimage.label(blobs > blobs.std())[0].astype(np.int32)
    red = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return labels, np.clip(150 + 400 * red - 60 * (blobs > 0.8 * blobs.std()), 0, 255).astype(np.uint8)


@pytest.mark.skipif(not compiled.AVAILABLE, reason="there is nothing to compare with")
@pytest.mark.parametrize(("inner", "outer"), [(1, 3), (0, 2), (2, 0), (0, 0)])
def test_without_compiled_loops_it_is_the_same(monkeypatch, inner, outer):
    labels, red = tissue(1)
    strength = edge_strength(red)
    fast = settled(labels, strength, inner=inner, outer=outer)
    monkeypatch.setattr(compiled, "AVAILABLE", False)
    np.testing.assert_array_equal(edge_strength(red), strength)
    assert (settled(labels, strength, inner=inner, outer=outer) != fast).mean() < 0.005
    assert len(np.unique(fast)) > 10


def test_a_part_of_a_picture_is_settled_as_in_the_whole():
    labels, red = tissue(2)
    whole = settled(labels, edge_strength(red), inner=1, outer=3)
    part = np.s_[40:140, 30:170]
    cut = settled(np.ascontiguousarray(labels[part]), edge_strength(red[part]), inner=1, outer=3)
    inner = np.s_[30:-30, 30:-30]
    assert (cut[inner] != whole[part][inner]).mean() < 0.001


def test_nothing_has_no_outlines():
    empty = np.zeros((20, 30), np.int32)
    assert not settled(empty, np.zeros(empty.shape, np.uint8), inner=1, outer=3).any()
    full = np.ones((20, 30), np.int32)
    assert settled(full, np.zeros(empty.shape, np.uint8), inner=1, outer=3).all()


def test_edges_are_as_strong_in_any_direction_and_lie_where_the_image_is_seen():
    red = tissue(3)[1]
    for view in (View(True, False, True), View(False, True, False), View(True, True, True)):
        seen = view.of(np.stack([red] * 3, axis=-1)[None])[0, ..., 0]
        np.testing.assert_array_equal(view.upright(edge_strength(seen)), edge_strength(red))
    window = np.s_[10:60, 20:80]
    cropped = Maps(np.zeros((1, *red.shape), np.float32), red=red).crop(window)
    np.testing.assert_array_equal(cropped.red, red[window])
