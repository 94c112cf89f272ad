"""Which nuclei are flagged as hard to tell apart."""

import numpy as np
import pytest

from wsiseg.ambiguity import NEAR, WIDE, ambiguous

BANDWIDTH, SCALE = 1.5, 0.15


def two(apart: float = 0.0, spread: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (16, 40, 80) of two squares whose means are `apart`, with pixels `spread` from the mean."""
    labels = np.zeros((40, 80), np.int32)
    labels[10:30, 10:30], labels[10:30, 50:70] = 1, 2
    y, x = np.mgrid[:40, :80]
    wanted = np.zeros((16, 40, 80))
    wanted[0], wanted[1] = 3.0, 3.0 + np.where(labels == 2, apart, 0)
    if spread:
        direction = np.random.default_rng(seed).normal(size=wanted.shape)
        wanted += spread * direction / np.linalg.norm(direction, axis=0)
    wanted[0] -= SCALE * y
    wanted[1] -= SCALE * x
    return wanted.astype(np.float16), labels


@pytest.mark.parametrize(
    ("bandwidths", "expected"), [(NEAR - 0.05, [True, True]), (NEAR + 0.05, [False, False]), (4, [False] * 2)]
)
def test_nuclei_whose_means_nearly_meet_are_flagged(bandwidths: float, expected: list[bool]) -> None:
    offsets, labels = two(apart=bandwidths * BANDWIDTH)
    assert ambiguous(offsets, labels, 2, scale=SCALE, bandwidth=BANDWIDTH).tolist() == expected


@pytest.mark.parametrize(("bandwidths", "expected"), [(WIDE - 0.05, False), (WIDE + 0.05, True)])
def test_a_nucleus_as_wide_as_the_kernel_is_flagged(bandwidths: float, expected: bool) -> None:
    offsets, labels = two(apart=6 * BANDWIDTH, spread=bandwidths * BANDWIDTH)
    assert ambiguous(offsets, labels, 2, scale=SCALE, bandwidth=BANDWIDTH).tolist() == [expected] * 2


def test_no_nuclei() -> None:
    offsets, labels = two()
    assert ambiguous(offsets, labels * 0, 0, scale=SCALE, bandwidth=BANDWIDTH).shape == (0,)


def test_moments_are_those_of_numpy() -> None:
    from wsiseg.ambiguity import _moments
    from wsiseg.label_sums import HALVES

    rng = np.random.default_rng(3)
    offsets = rng.normal(size=(5, 12, 17)).astype(np.float16)
    labels = rng.integers(0, 4, (12, 17))
    means, spread = _moments(offsets.view(np.uint16), HALVES, labels, 3, SCALE)
    anchored = offsets.astype(np.float64)
    anchored[:2] += np.mgrid[:12, :17] * SCALE
    for label in (1, 2, 3):
        rows = anchored[:, labels == label].T
        np.testing.assert_allclose(means[label - 1], rows.mean(0), rtol=1e-6)
        away = np.sqrt(((rows - rows.mean(0)) ** 2).sum(1).mean())
        assert spread[label - 1] == pytest.approx(away, rel=1e-6)
