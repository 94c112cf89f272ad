"""Nuclei traced from points along the edges of an image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.pseudo_labels import voronoi_cells
from wsiseg.tracing import STIFF, best_lengths, traced

SHAPE = (120, 140)
Y, X = np.indices(SHAPE) + 0.5


def ellipse(y: float, x: float, half: float, across: float, turn: float = 0.0) -> NDArray[np.bool_]:
    down, right = Y - y, X - x
    along = np.cos(turn) * down + np.sin(turn) * right
    beside = -np.sin(turn) * down + np.cos(turn) * right
    return (along / half) ** 2 + (beside / across) ** 2 <= 1


def stained(*nuclei: NDArray[np.bool_], dark: float = 90.0, seed: int = 0) -> NDArray[np.uint8]:
    """Red of nuclei on pale tissue, as blurred and noisy as a scan."""
    red = np.full(SHAPE, 210.0)
    for nucleus in nuclei:
        red[nucleus] = dark
    noise = np.random.default_rng(seed).normal(0, 6, SHAPE)
    return np.clip(ndimage.gaussian_filter(red, 1.0) + noise, 0, 255).astype(np.uint8)


def trace(
    red: NDArray[np.uint8], points: list[tuple[float, float]], radius: float = 12.0, sure: float = 0.1
) -> NDArray[np.int32]:
    """With a network that says the same of every pixel: the image alone decides."""
    at = np.array(points, float).reshape(-1, 2)
    return traced(red, at, np.full(SHAPE, sure), voronoi_cells(at, SHAPE), radius=radius)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [7, 12, 20])
def test_round_nuclei_of_any_size(size: int) -> None:
    nucleus = ellipse(60, 70, size, size)
    assert iou(trace(stained(nucleus), [(60, 70)]) == 1, nucleus) > 0.88


def test_a_click_need_not_be_in_the_middle() -> None:
    nucleus = ellipse(60, 70, 12, 12)
    assert iou(trace(stained(nucleus), [(66, 74)]) == 1, nucleus) > 0.9


@pytest.mark.parametrize("turn", [0.0, 0.6, 1.2])
def test_a_long_nucleus(turn: float) -> None:
    nucleus = ellipse(60, 70, 22, 8, turn)
    assert iou(trace(stained(nucleus), [(60, 70)]) == 1, nucleus) > 0.85


def test_a_pale_nucleus_ends_at_its_membrane() -> None:
    nucleus, inner = ellipse(60, 70, 14, 14), ellipse(60, 70, 11.5, 11.5)
    red = stained(nucleus & ~inner, ellipse(58, 67, 3, 3))
    dark = ndimage.label(red < 150)[0]
    assert iou(dark == dark[58, 67], nucleus) < 0.2
    assert iou(trace(red, [(60, 70)]) == 1, nucleus) > 0.85


def test_nuclei_that_touch_are_parted() -> None:
    nuclei = [ellipse(60, 55, 13, 13), ellipse(60, 81, 13, 13)]
    found = trace(stained(*nuclei), [(60, 55), (60, 81)])
    for number, nucleus in enumerate(nuclei, 1):
        assert iou(found == number, nucleus) > 0.85


def test_what_a_network_sees_counts_where_no_edge_is() -> None:
    flat, nucleus = np.full(SHAPE, 200, np.uint8), ellipse(60, 70, 16, 16)
    at = np.array([[60.0, 70.0]])
    found = traced(flat, at, np.where(nucleus, 0.9, 0.0), voronoi_cells(at, SHAPE), radius=12)
    assert iou(found == 1, nucleus) > 0.9


def test_lengths_go_with_the_typical_radius() -> None:
    small, large = ellipse(60, 70, 7, 7), ellipse(60, 70, 28, 28)
    assert iou(trace(stained(small), [(60, 70)], radius=6) == 1, small) > 0.85
    assert iou(trace(stained(large), [(60, 70)], radius=24) == 1, large) > 0.9


def test_moved_in_the_image_is_moved_in_the_result() -> None:
    red = stained(ellipse(50, 50, 11, 9), ellipse(60, 90, 14, 8, 0.5))
    found = trace(red, [(50, 50), (60, 90)])
    moved = trace(np.roll(red, (7, 11), (0, 1)), [(57, 61), (67, 101)])
    np.testing.assert_array_equal(np.roll(found, (7, 11), (0, 1)), moved)


def test_without_points_there_are_no_nuclei() -> None:
    assert not trace(stained(ellipse(60, 70, 9, 9)), []).any()


@pytest.mark.parametrize("point", [(0.0, 0.0), (119.9, 139.9), (0.0, 70.0)])
def test_points_on_the_border(point: tuple[float, float]) -> None:
    found = trace(stained(ellipse(*point, 12, 12)), [point])
    assert iou(found == 1, ellipse(*point, 12, 12)) > 0.7


def worth_of(curve: tuple[int, ...], worth: NDArray[np.float32], jump: int) -> float:
    steps = np.abs(np.diff([*curve, curve[0]]))
    if steps.max() > jump:
        return -np.inf
    return float(worth[np.arange(len(curve)), list(curve)].sum() - STIFF * (steps**2).sum())


def test_the_curve_is_next_to_the_best_of_all_closed_ones() -> None:
    rng, lost = np.random.default_rng(0), []
    for _ in range(40):
        worth = rng.uniform(0, 1, (1, 6, 4)).astype(np.float32)
        best = max(worth_of(c, worth[0], 1) for c in itertools.product(range(4), repeat=6))
        found = worth_of(tuple(best_lengths(worth, jump=1, stiff=STIFF)[0].tolist()), worth[0], 1)
        assert found <= best + 1e-6
        lost.append(found < best - 1e-6)
    assert np.mean(lost) < 0.1
