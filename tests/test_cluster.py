import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score

from wsiseg import compiled, loops
from wsiseg.cluster import _modes, _modes_dense, cluster_anchored, cluster_free
from wsiseg.instances import instances, without_background

SCALE = 0.15


def drawn(size=96, nuclei=14, noise=0.12, seed=0):
    """Ellipses, some touching, and offsets that point most of the way to their centres."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels, centres = np.zeros((size, size), int), [np.zeros(2)]
    for _ in range(50 * nuclei):
        at, (a, b) = rng.uniform(8, size - 8, 2), rng.uniform(6, 9, 2)
        if len(centres) > nuclei or min(np.linalg.norm(at - c) for c in [(-99, -99), *centres[1:]]) < 15:
            continue
        labels[(((y - at[0]) / a) ** 2 + ((x - at[1]) / b) ** 2 < 1) & (labels == 0)] = len(centres)
        centres.append(at)
    offsets = rng.normal(0, noise, (6, size, size))
    offsets[0] += 0.85 * SCALE * (np.array(centres)[labels, 0] - y)
    offsets[1] += 0.85 * SCALE * (np.array(centres)[labels, 1] - x)
    offsets[2:] += rng.normal(0, 0.5, (len(centres), 4))[labels].transpose(2, 0, 1)
    return labels, offsets.astype(np.float16)


def anchored(offsets, mask, origin=(0, 0)):
    return cluster_anchored(offsets, mask, origin=origin, scale=SCALE)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_shift_of_scikit_learn(seed):
    labels, offsets = drawn(64, 7, seed=seed)
    mask = labels > 0
    y, x = np.nonzero(mask)
    embedded = offsets[:, mask].T.astype(float)
    embedded[:, :2] += SCALE * np.stack([y, x], axis=1)
    reference = MeanShift(bandwidth=1.5, cluster_all=True).fit(embedded).labels_
    assert adjusted_rand_score(reference, anchored(offsets, mask)[mask]) >= 0.99


def test_with_every_pixel_a_point_and_a_seed_only_blocks_are_left_to_differ():
    labels, offsets = drawn(64, 7, noise=0.4)
    mask = labels > 0
    embedded = offsets[:, mask].T.astype(float)
    embedded[:, :2] += SCALE * np.argwhere(mask)
    reference = MeanShift(bandwidth=1.5).fit(embedded).labels_
    found = cluster_anchored(offsets, mask, origin=(0, 0), scale=SCALE, cell=(1, 1))
    assert adjusted_rand_score(reference, found[mask]) >= 0.995


@pytest.mark.parametrize("noise", [0.12, 0.4])
def test_compiled_loops_and_batches_on_a_gpu_find_the_same(monkeypatch, noise):
    labels, offsets = drawn(256, 90, noise=noise)
    mask = labels > 0
    compiled_loops = anchored(offsets, mask, (640, 64))
    monkeypatch.setattr(compiled, "AVAILABLE", False)
    batched = anchored(offsets, mask, (640, 64))
    assert adjusted_rand_score(compiled_loops[mask], batched[mask]) >= 0.995


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-9, 9, width=32)))
def test_every_pixel_goes_to_the_nearest_mode(modes):
    pixels = np.random.default_rng(0).uniform(-12, 12, (60, 3)).astype(np.float32)
    distances = np.linalg.norm(pixels[:, None].astype(float) - modes, axis=2)
    chosen = distances[np.arange(60), loops.nearest(pixels, modes, 1.0)]
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-5)


def test_it_finds_the_nuclei_that_were_drawn():
    labels, offsets = drawn(256, 90)
    mask = labels > 0
    found = instances(anchored(offsets, mask), min_area=20)
    both = mask & (found > 0)
    assert both.sum() > 0.98 * mask.sum()
    assert adjusted_rand_score(labels[both], found[both]) > 0.97


@pytest.mark.parametrize("origin", [(200_000, 200_000), (64 * 7, 64 * 300), (-128, 64)])
def test_the_same_tissue_elsewhere_has_the_same_clusters(origin):
    labels, offsets = drawn()
    here, there = anchored(offsets, labels > 0), anchored(offsets, labels > 0, origin)
    np.testing.assert_array_equal(here, there)


def test_two_tiles_agree_where_they_overlap():
    labels, offsets = drawn(320, 130)
    mask = labels > 0
    left = instances(anchored(offsets[:, :, :192], mask[:, :192]), min_area=20)[:, 96:160]
    right = instances(anchored(offsets[:, :, 64:], mask[:, 64:], (0, 64)), min_area=20)[:, 32:96]
    both = (left > 0) & (right > 0)
    assert both.sum() > 0.98 * mask[:, 96:160].sum()
    assert adjusted_rand_score(left[both], right[both]) > 0.99


def test_it_is_deterministic_and_numbers_of_threads_do_not_count():
    labels, offsets = drawn(128, 25)
    before = torch.get_num_threads()
    first = anchored(offsets, labels > 0)
    torch.set_num_threads(1)
    second = anchored(offsets, labels > 0)
    torch.set_num_threads(before)
    np.testing.assert_array_equal(first, second)


def test_nothing_and_next_to_nothing():
    _, offsets = drawn()
    mask = np.zeros((96, 96), bool)
    assert anchored(offsets, mask).max() == 0
    assert cluster_free(offsets, mask).max() == 0
    mask[5, 7] = True  # on no lattice
    assert anchored(offsets, mask).sum() == 1


@given(st.integers(0, 19), st.integers(0, 19), st.integers(-300, 300_000), st.integers(-300, 300_000))
def test_a_single_pixel_anywhere_is_one_cluster(y, x, y0, x0):
    mask = np.zeros((20, 20), bool)
    mask[y, x] = True
    np.testing.assert_array_equal(anchored(np.full((4, 20, 20), 5.9), mask, (y0, x0)), mask)


@given(st.integers(-4, 5000), st.integers(-4, 5000))
def test_moved_by_whole_blocks_nothing_changes(rows, columns):
    labels, offsets = drawn(48, 5)
    moved = anchored(offsets, labels > 0, (64 * rows, 64 * columns))
    np.testing.assert_array_equal(moved, anchored(offsets, labels > 0))


@pytest.mark.skipif(not compiled.AVAILABLE, reason="there is nothing to compare with")
def test_both_ways_without_an_anchor_find_the_same():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 7, 6000)
    pixels = (rng.normal(0, 3, (7, 6))[kind] + rng.normal(0, 0.3, (6000, 6))).astype(np.float32)
    points = pixels[::8]
    looped = _modes(pixels, points, points[::4], 1.5)
    dense = _modes_dense(pixels, points, points[::4], 1.5, device="cpu")
    assert adjusted_rand_score(looped, dense) > 0.999
    assert adjusted_rand_score(looped, kind) > 0.999


def test_without_an_anchor_and_with_background_as_a_cluster():
    labels, _ = drawn(96, 8)
    rng = np.random.default_rng(0)
    # Two embeddings are shared by all nuclei, as a period of the coordinate waves lets them be.
    kinds = np.concatenate([[np.zeros(4)], rng.permutation(np.eye(4)[:2] * 5)[rng.integers(0, 2, 8)]])
    embedding = (kinds[labels].transpose(2, 0, 1) + rng.normal(0, 0.1, (4, 96, 96))).astype(np.float16)
    prob = np.where(labels > 0, 0.9, 0.1)
    foreground = ndimage.binary_dilation(labels > 0, iterations=2)
    clusters = cluster_free(embedding, foreground)
    assert clusters.max() == 3
    found = without_background(clusters, embedding, prob, sure=0.3)
    assert ((found > 0) == (labels > 0)).mean() > 0.99
    published = without_background(clusters, embedding, np.where(prob < 0.5, 0.4, prob), sure=0.3)
    assert published.max() <= 3
