"""Pictures: where the ink falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsiseg import draw
from wsiseg.draw import draw_grid, draw_outlines, draw_scale_bar


def white(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """A white picture."""
    return np.full((height, width, 3), 255, np.uint8)


def square(y: float, x: float, side: float) -> NDArray[np.float64]:
    """Corners of a square."""
    return np.array([[y, x], [y, x + side], [y + side, x + side], [y + side, x]])


def ink(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How dark each pixel is: 0 white, 1 black."""
    return 1 - picture[..., 0] / 255


def nearly(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two pictures are the same but for Pillow, which knows no fractions of a subpixel."""
    return float(np.abs(ink(one) - ink(other)).mean()) < 2e-3


def test_an_outline_runs_along_pixel_corners() -> None:
    dark = ink(draw_outlines(white(), [square(10, 20, 8)], width=2)) > 0.9
    expected = np.zeros((40, 60), bool)
    expected[9:19, 19:29] = True
    expected[11:17, 21:27] = False
    # The four outer corner pixels are rounded off.
    assert (dark != expected).sum() <= 4


def test_length_times_width_is_the_ink() -> None:
    drawn = ink(draw_outlines(white(100, 100), [square(20, 30, 40)], width=1.5)).sum()
    assert drawn == pytest.approx(4 * 40 * 1.5, rel=0.2)


def test_the_colour_is_the_one_asked_for_and_the_picture_is_left_alone() -> None:
    picture = white()
    drawn = draw_outlines(picture, [square(10, 10, 10)], color=(200, 60, 10), width=3)
    assert drawn[10, 15].tolist() == [200, 60, 10]
    assert (picture == 255).all()


def test_tissue_beside_the_lines_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    drawn = draw_outlines(tissue, [square(20, 20, 40)])
    far = np.ones((80, 80), bool)
    far[17:63, 17:63] = False
    far[23:57, 23:57] = True
    assert np.array_equal(drawn[far], tissue[far])


def test_a_closed_ring_is_drawn_as_an_open_one() -> None:
    ring = square(5, 5, 20)
    closed = np.concatenate([ring, ring[:1]])
    assert np.array_equal(draw_outlines(white(), [ring]), draw_outlines(white(), [closed]))


def test_nothing_to_draw_is_a_copy() -> None:
    picture = white()
    drawn = draw_outlines(picture, [])
    assert np.array_equal(drawn, picture)
    assert not np.shares_memory(drawn, picture)


def test_rings_outside_the_picture_leave_no_ink() -> None:
    assert not ink(draw_outlines(white(), [square(-50, 5, 20), square(5, 200, 20)])).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 50))
def test_drawn_in_bands_is_drawn_at_once(seed: int, band: int) -> None:
    rng = np.random.default_rng(seed)
    rings = [rng.uniform(-10, 60, (5, 2)) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        whole = draw_outlines(white(50, 50), rings, width=2)
        patch.setattr(draw, "BAND", band)
        assert nearly(draw_outlines(white(50, 50), rings, width=2), whole)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), st.integers(-30, 30))
def test_moved_in_the_picture_is_moved_in_the_ink(seed: int, dy: int, dx: int) -> None:
    ring = np.random.default_rng(seed).uniform(40, 60, (6, 2))
    moved = draw_outlines(white(100, 100), [ring + np.array([dy, dx])])
    still = draw_outlines(white(100, 100), [ring])
    assert nearly(np.roll(still, (dy, dx), axis=(0, 1)), moved)


def test_a_grid_has_its_lines_where_the_tiles_meet() -> None:
    drawn = ink(draw_grid(white(100, 100), step=30, origin=(-10, 5), color=(0, 0, 0), width=2))
    rows, columns = drawn[:, 20] > 0.9, drawn[15] > 0.9
    assert np.flatnonzero(rows).tolist() == [19, 20, 49, 50, 79, 80]
    assert np.flatnonzero(columns).tolist() == [4, 5, 34, 35, 64, 65, 94, 95]


def test_a_grid_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step of a grid is 0"):
        draw_grid(white(), step=0)


@pytest.mark.parametrize(("mpp", "length"), [(0.25, 400), (0.5, 400), (10.0, 500)])
def test_the_scale_bar_has_a_round_length(mpp: float, length: int) -> None:
    drawn = draw_scale_bar(np.full((900, 2000, 3), 128, np.uint8), mpp=mpp)
    longest = max(run_of_black(row) for row in drawn[-60:, :, 0])
    assert longest == pytest.approx(length, abs=2)


def run_of_black(row: NDArray[np.uint8]) -> int:
    """Longest run of black pixels."""
    return max(len(run) for run in "".join("#" if value == 0 else " " for value in row).split(" "))


def test_no_scale_bar_where_a_micron_is_too_long() -> None:
    assert np.array_equal(draw_scale_bar(white(), mpp=0.05), white())
