"""Cells: held against a search over all nuclei, pixel by pixel, and against the tiling."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.draw import polygon

from wsiseg import nuclei
from wsiseg.cells import grown, painted, trace_cover
from wsiseg.geometry import Rect
from wsiseg.measure import Wanted
from wsiseg.measuring import Neighbourhood, measured
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.polygons import to_shapely, trace
from wsiseg.slides.readers.flat import FlatImage
from wsiseg.slides.resample import PlanView


def blobs(seed: int, size: int = 60, count: int = 12) -> NDArray[np.int32]:
    """Discs that may touch, but hardly cover each other, labels 1..n."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    discs: list[tuple[float, float, float]] = []
    for number in range(1, count + 1):
        cy, cx, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(2, 7)
        if all(np.hypot(cy - v, cx - u) > 0.85 * (radius + r) for v, u, r in discs):
            labels[((y - cy) ** 2 + (x - cx) ** 2 < radius**2) & (labels == 0)] = number
            discs.append((cy, cx, radius))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def by_search(labels: NDArray[np.int32], distance: float) -> NDArray[np.int32]:
    at = np.argwhere(labels)
    out = labels.copy()
    for y, x in np.argwhere(labels == 0):
        away = ((at - (y, x)) ** 2).sum(1)
        if len(at) and away.min() <= distance**2:
            out[y, x] = labels[tuple(at[away == away.min()].T)].min()
    return out


@given(st.integers(0, 10_000), st.floats(0.5, 12))
def test_every_pixel_is_the_nearest_nucleus_s(seed: int, distance: float) -> None:
    labels = blobs(seed, 40)
    assert np.array_equal(grown(labels, distance), by_search(labels, distance))


@given(st.integers(0, 10_000))
def test_outlines_of_a_cover_never_overlap_and_lose_next_to_nothing(seed: int) -> None:
    labels = grown(blobs(seed), 6)
    drawn = to_shapely(*_parts(trace_cover(labels)))
    assert shapely.is_valid(drawn).all()
    assert_apart(drawn)
    pixels = np.bincount(labels.ravel())[1:]
    whole = pixels > 100
    assert np.abs(shapely.area(drawn[whole]) / pixels[whole] - 1).max(initial=0) < 0.06
    assert pixels.sum() * 0.98 - 10 < shapely.area(drawn).sum() < pixels.sum() * 1.02 + 10


@given(st.integers(0, 10_000))
def test_any_labels_have_valid_outlines_that_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(0, 4, (9, 9)), return_inverse=True)[1].reshape(9, 9).astype(np.int32)
    drawn = to_shapely(*_parts(trace_cover(labels)))
    assert shapely.is_valid(drawn).all()
    assert_apart(drawn)


def assert_apart(drawn: NDArray[np.object_]) -> None:
    first, second = shapely.STRtree(drawn).query(drawn, predicate="intersects")
    first, second = first[first < second], second[first < second]
    common = shapely.area(shapely.intersection(drawn[first], drawn[second]))
    # Rings leave holes out: what a label encloses is in its outline.
    smaller = np.minimum(shapely.area(drawn[first]), shapely.area(drawn[second]))
    assert ((common < 1e-4) | (common > 0.99 * smaller)).all()


def _parts(rings: Rings) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return rings.vertices, rings.offsets


def test_outlines_have_few_corners() -> None:
    y, x = np.mgrid[:80, :80]
    disc = ((y - 40) ** 2 + (x - 40) ** 2 < 30**2).astype(np.int32)
    assert 10 < len(trace_cover(disc).vertices) < 80
    assert len(trace_cover(np.ones((20, 30), np.int32)).vertices) == 8


def test_pixels_are_those_whose_centre_is_inside() -> None:
    rng = np.random.default_rng(0)
    rings = [
        np.stack([30 + r * np.sin(a), 34 + r * np.cos(a)], 1)
        for r, a in (
            (rng.uniform(5, 25, 14)[:, None].ravel(), np.linspace(0, 2 * np.pi, 14, endpoint=False))
            for _ in range(20)
        )
    ]
    for ring in rings:
        got = painted(Rings(ring.astype(np.float32), np.array([0, len(ring)])), Rect(5, 3, 64, 66))
        expected = np.zeros((64, 66), np.int32)
        expected[polygon(*(ring.astype(np.float32).T.astype(float) - 0.5), expected.shape)] = 1
        assert np.array_equal(got, expected[5:, 3:])


def test_the_first_of_two_outlines_has_the_pixels_of_both() -> None:
    square = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], np.float32)
    both = nuclei.together([Rings(square, np.array([0, 4])), Rings(square + 2, np.array([0, 4]))])
    assert np.bincount(painted(both, Rect(0, 0, 8, 8)).ravel())[1:].tolist() == [16, 12]


GLASS = PlanView(FlatImage(np.full((200, 200, 3), 255, np.uint8)), 0.25, 0.25)


def table(labels: NDArray[np.int32], *, mpp: float = 0.25) -> NucleusTable:
    vertices, offsets = trace(labels)
    count = len(offsets) - 1
    centroid = np.array([np.argwhere(labels == i + 1).mean(0) + 0.5 for i in range(count)]).reshape(-1, 2)
    return NucleusTable(
        mpp=mpp,
        centroid=centroid,
        area=np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(float),
        score=np.ones(count, np.float32),
        label=np.zeros(count, np.int32),
        tile=np.zeros(count, np.int32),
        vertices=vertices,
        offsets=offsets,
    )


@pytest.mark.parametrize("seed", range(4))
def test_cells_are_the_same_whoever_looks_and_none_covers_another(seed: int) -> None:
    every = table(blobs(seed, size=200, count=80))
    wanted = Wanted(cells_um=2.5)
    at_once = measured(alone(every), GLASS, wanted).cells
    assert at_once is not None
    for own in np.array_split(np.random.default_rng(seed).permutation(len(every)), 5):
        others = np.setdiff1d(np.arange(len(every)), own)
        here = Neighbourhood(every.take(own), every.rings.take(others), every.centroid[others])
        cells = measured(here, GLASS, wanted).cells
        assert cells is not None
        assert np.array_equal(cells.offsets, at_once.take(own).offsets)
        assert np.array_equal(cells.vertices, at_once.take(own).vertices)
    drawn = to_shapely(*_parts(at_once))
    first, second = shapely.STRtree(drawn).query(drawn, predicate="intersects")
    common = shapely.area(shapely.intersection(drawn[first], drawn[second]))[first < second]
    assert common.max() < 1e-3
    nucleus = to_shapely(every.vertices, every.offsets)
    # Half a micron's grid on discs of as little as one micron.
    assert np.median(shapely.area(shapely.intersection(nucleus, drawn)) / shapely.area(nucleus)) > 0.97
    farthest = shapely.distance(shapely.points(shapely.get_coordinates(drawn)), shapely.union_all(nucleus))
    assert 9 < np.percentile(farthest, 99) < 12


def alone(table: NucleusTable) -> Neighbourhood:
    none = np.zeros(0, np.int64)
    return Neighbourhood(table, table.rings.take(none), np.zeros((0, 2)))


def test_no_cell_grows_out_of_the_slide() -> None:
    corner = np.zeros((20, 20), np.int32)
    corner[1:7, 1:9] = 1
    cells = measured(alone(table(corner)), GLASS, Wanted(cells_um=5.0)).cells
    assert cells is not None
    assert cells.vertices.min() == 0
    assert 24 < cells.vertices.max() < 32


def test_a_nucleus_far_out_has_the_cell_it_has_at_the_origin() -> None:
    here = table(blobs(3)).shift(100, 100)
    wanted = Wanted(cells_um=2.0)
    vast = SimpleNamespace(shape=(200_000, 200_000))
    near = measured(alone(here), GLASS, wanted).cells
    far = measured(alone(here.shift(100_000, 50_000)), vast, wanted).cells  # type: ignore[arg-type]
    assert near is not None
    assert far is not None
    # Outlines so far out are rounded to a 128th of a pixel: the odd pixel may change sides.
    areas = [shapely.area(to_shapely(*_parts(c))) for c in (near, far.moved(np.array([-1e5, -5e4])))]
    np.testing.assert_allclose(areas[0], areas[1], rtol=0.02)
