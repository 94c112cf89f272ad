"""Context and cells of merged nuclei, row by row: what a search over all of them finds, whatever the tiling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from slides_made import discs

from wsiseg import context, nuclei
from wsiseg.deconvolution import H_DAB, H_E
from wsiseg.geometry import Rect
from wsiseg.measure import MEASURES, Wanted
from wsiseg.measuring import measured
from wsiseg.nuclei import NucleusTable
from wsiseg.polygons import to_shapely
from wsiseg.regions import Region
from wsiseg.result import in_order, neighbourhoods
from wsiseg.slides.readers.flat import FlatImage
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef
from wsiseg.survey import Survey
from wsiseg.tiling import make_plan

SIDE = 2000
MPP = 0.25


def scene(seed: int, count: int = 400) -> NucleusTable:
    """Octagons, in clumps and alone; some overlap."""
    rng = np.random.default_rng(seed)
    clumps = rng.uniform(100, SIDE - 100, (8, 2))
    centre = clumps[rng.integers(0, 8, count)] + rng.normal(0, 90, (count, 2))
    centre = centre.clip(12, SIDE - 12)
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    radius = rng.uniform(5, 11, count)
    corners = (centre[:, None] + radius[:, None, None] * ring).reshape(-1, 2)
    return NucleusTable(
        mpp=MPP,
        centroid=centre,
        area=np.full(count, 100.0),
        score=np.ones(count, np.float32),
        label=np.arange(count, dtype=np.int32),  # tells nuclei apart, whatever their order
        tile=np.zeros(count, np.int32),
        vertices=corners.astype(np.float32),
        offsets=np.arange(count + 1) * 8,
    )


def surveyed(core: int, roi: tuple[Region, ...] = ()) -> Survey:
    plan = make_plan((SIDE, SIDE), mpp=MPP, core=core, halo=64)
    everywhere = np.ones((1, 1), bool)
    return Survey(
        SlideRef("x"), "f", (SIDE, SIDE), MPP, 0, 1, 1.0, roi, roi, everywhere, SIDE * MPP, 1.0, {}, plan
    )


def rows_of(table: NucleusTable, found: Survey) -> Iterator[NucleusTable]:
    """The table as seams leave it: by tile, a row of the grid after another."""
    cell = (table.centroid // found.plan.core).astype(int)
    table = replace(table, tile=(cell[:, 0] * found.plan.grid[1] + cell[:, 1]).astype(np.int32))
    table = table.take(np.argsort(table.tile, kind="stable"))
    row = table.tile // found.plan.grid[1]
    return (table.take(row == number) for number in np.unique(row))


def measured_in(
    table: NucleusTable, core: int, wanted: Wanted, picture: NDArray[np.uint8], roi: tuple[Region, ...] = ()
) -> NucleusTable:
    found = surveyed(core, roi)
    view = PlanView(FlatImage(picture), MPP, MPP)
    parts = [measured(here, view, wanted) for here in neighbourhoods(rows_of(table, found), found, wanted)]
    together = nuclei.concatenate(parts)
    return together.take(np.argsort(together.label))


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return discs((SIDE, SIDE))[0]


EVERYTHING = Wanted(shape=True, context=True, stains=H_E, cells_um=5.0)


@pytest.mark.parametrize("core", [192, 704])
def test_all_is_the_same_whatever_the_tiling(core: int, picture: NDArray[np.uint8]) -> None:
    table = scene(core)
    whole = measured_in(table, 2048, EVERYTHING, picture)
    cut = measured_in(table, core, EVERYTHING, picture)
    assert len(whole) == len(cut) == len(table)
    for name, values in whole.columns.items():
        assert np.array_equal(values, cut.columns[name], equal_nan=True), name
    assert whole.cells is not None
    assert cut.cells is not None
    assert np.array_equal(whole.cells.offsets, cut.cells.offsets)
    assert np.array_equal(whole.cells.vertices, cut.cells.vertices)


@pytest.mark.parametrize("core", [192, 2048])
def test_context_is_that_of_a_search_over_all(core: int, picture: NDArray[np.uint8]) -> None:
    table = scene(core)
    got = measured_in(table, core, Wanted(context=True), picture).columns
    apart = np.hypot(*(table.centroid[:, None] - table.centroid[None]).transpose(2, 0, 1)) * MPP
    others = np.where(np.eye(len(table), dtype=bool), np.inf, apart).min(1)
    lonely = others > context.NEAREST_UM
    np.testing.assert_allclose(got[context.NAMES[0]][~lonely], others[~lonely], rtol=1e-5)
    assert np.isnan(got[context.NAMES[0]][lonely]).all()
    number = (apart <= context.RADIUS_UM).sum(1)
    plan = shapely.box(0, 0, SIDE * MPP, SIDE * MPP)
    fine = [shapely.Point(c[::-1] * MPP).buffer(context.RADIUS_UM, quad_segs=200) for c in table.centroid]
    area = np.array([disc.intersection(plan).area for disc in fine]) / 1e6
    np.testing.assert_allclose(got[context.NAMES[1]], number / area, rtol=2e-3)
    assert (area < 0.0075).any()


def test_near_the_border_of_a_region_its_outside_is_not_counted_as_empty(picture: NDArray[np.uint8]) -> None:
    step = 40
    grid = np.stack(np.meshgrid(*[np.arange(20, SIDE, step)] * 2, indexing="ij"), -1).reshape(-1, 2)
    table = scene(0, len(grid))
    rings = table.vertices.reshape(-1, 8, 2) - table.centroid[:, None] + grid[:, None]
    table = replace(table, centroid=grid.astype(float), vertices=rings.reshape(-1, 2).astype(np.float32))
    square = np.array([[300.0, 300.0], [300.0, 1500.0], [1300.0, 1500.0], [1300.0, 300.0]])
    hole = np.array([[700.0, 700.0], [700.0, 900.0], [900.0, 900.0], [900.0, 700.0]])
    got = measured_in(table, 512, Wanted(context=True), picture, (Region(square, (hole,)),))
    assert 0 < len(got) < len(table)
    true = 1e6 / (step * MPP) ** 2
    density = got.columns[context.NAMES[1]]
    assert np.median(density) == pytest.approx(true, rel=0.05)
    assert density.min() > 0.75 * true
    assert density.max() < 1.45 * true
    # The nearest one may lie just outside.
    np.testing.assert_allclose(got.columns[context.NAMES[0]], step * MPP, rtol=1e-5)


def test_a_lonely_nucleus_and_none_at_all(picture: NDArray[np.uint8]) -> None:
    table = scene(0).take(np.array([0]))
    got = measured_in(table, 256, EVERYTHING, picture)
    assert np.isnan(got.columns[context.NAMES[0]]).all()
    assert got.columns[context.NAMES[1]] == pytest.approx(1e6 / (np.pi * context.RADIUS_UM**2), rel=0.3)
    found = surveyed(256)
    assert list(neighbourhoods(iter([]), found, EVERYTHING)) == []


def test_a_nucleus_outside_the_region_bounds_cells_and_is_left_out(picture: NDArray[np.uint8]) -> None:
    pair = scene(0).take(np.array([0, 1]))
    rings = pair.vertices.reshape(2, 8, 2) - pair.centroid[:, None]
    centre = np.array([[500.0, 500.0], [500.0, 530.0]])
    pair = replace(
        pair, centroid=centre, vertices=(rings + centre[:, None]).reshape(-1, 2).astype(np.float32)
    )
    left = Region(np.array([[0.0, 0.0], [0.0, 515.0], [1000.0, 515.0], [1000.0, 0.0]]))
    alone = measured_in(pair.take(np.array([0])), 512, Wanted(cells_um=5.0), picture)
    both = measured_in(pair, 512, Wanted(cells_um=5.0), picture, (left,))
    assert len(both) == 1
    assert alone.cells is not None
    assert both.cells is not None
    assert both.cells.vertices[:, 1].max() < 525 < alone.cells.vertices[:, 1].max()


def test_memory_is_that_of_a_few_tiles() -> None:
    found, table = surveyed(128), scene(0, 4000)
    parts = list(context.with_neighbours(rows_of(table, found), found.plan, 40))
    assert max(len(near) for _, near in parts) < 1000
    labels = np.concatenate([own.label for own, _ in parts])
    np.testing.assert_array_equal(np.sort(labels), np.arange(len(table)))


@given(st.permutations(range(12)))
def test_results_come_in_the_order_of_their_tasks(order: list[int]) -> None:
    tables = [replace(nuclei.empty(0.25), area=np.array([float(i)])) for i in range(12)]
    assert [t.area[0] for t in in_order((i, tables[i]) for i in order)] == list(range(12))


def test_a_surface_of_many_corners_gives_the_area_of_its_discs() -> None:
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = 600 + rng.uniform(-80, 80, 300)
    star = np.stack([800 + radius * np.sin(angle), 800 + radius * np.cos(angle)], axis=1)
    surface = context.Surface((1400, 1400), (Region(star * 2),), scale=2.0, step=300)
    area = shapely.Polygon(star[:, ::-1]).intersection(shapely.box(0, 0, 1400, 1400))
    points = rng.uniform(200, 1390, (300, 2))
    points = points[shapely.contains_xy(area, points[:, 1], points[:, 0])]
    true = [shapely.Point(p[::-1]).buffer(100, quad_segs=100).intersection(area).area for p in points]
    np.testing.assert_allclose(surface.within(points, 100), true, rtol=5e-3)


def test_stains_and_cells_of_a_thousand_nuclei_are_those_of_the_label_image(
    picture: NDArray[np.uint8],
) -> None:
    table = scene(7, 1000)
    outlines = to_shapely(table.vertices, table.offsets)
    # Nuclei that seams leave do not overlap.
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    free = np.ones(len(table), bool)
    for i, j in zip(first, second, strict=True):
        if i < j and free[i]:
            free[j] = False
    table = scene(7, 1000).take(free)
    dense = scene(8, 6000)
    far = shapely.STRtree(to_shapely(table.vertices, table.offsets))
    more = to_shapely(dense.vertices, dense.offsets)
    keep: list[int] = []
    taken: list[shapely.Polygon] = []
    for i in np.flatnonzero(np.bincount(far.query(more, predicate="intersects")[0], minlength=6000) == 0):
        if not any(more[i].intersects(t) for t in taken):
            keep.append(int(i))
            taken.append(more[i])
    table = nuclei.concatenate([table, dense.take(np.array(keep))])
    table = replace(table, label=np.arange(len(table), dtype=np.int32))
    got = measured_in(table, 512, Wanted(stains=H_E, cells_um=5.0), picture)
    assert len(got) >= 1000
    labels = np.zeros((SIDE, SIDE), np.int32)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for number, outline in enumerate(to_shapely(table.vertices, table.offsets), start=1):
        left, top, right, bottom = (int(v) for v in outline.bounds)
        box = Rect(top, left, bottom + 1, right + 1).slices()
        labels[box][shapely.contains_xy(outline, x[box], y[box])] = number
    vectors = np.array([*H_E.vectors, np.cross(*H_E.vectors)]).T
    density = -np.log10(np.maximum(picture, 1) / 255)
    amounts = np.linalg.solve(vectors, density.reshape(-1, 3).T).T.reshape(picture.shape)
    index = np.flatnonzero(labels)
    groups = np.argsort(labels.ravel()[index], kind="stable")
    pixels = np.split(index[groups], np.cumsum(np.bincount(labels.ravel()[index])[1:])[:-1])
    for k, stain in enumerate(H_E.names):
        of = [amounts[..., k].ravel()[some] for some in pixels]
        for name, function in {
            "Mean": np.mean,
            "Median": np.median,
            "Min": np.min,
            "Max": np.max,
            "Std.Dev.": lambda some: np.std(some, ddof=1),
        }.items():
            values = np.array([function(some) for some in of])
            np.testing.assert_allclose(
                got.columns[f"Nucleus: {stain}: {name}"], values, rtol=1e-3, atol=1e-5, err_msg=name
            )


def test_cytoplasm_is_that_of_a_search_for_the_nearest_nucleus(picture: NDArray[np.uint8]) -> None:
    table = scene(9, 250)
    outlines = to_shapely(table.vertices, table.offsets)
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    table = table.take(np.setdiff1d(np.arange(len(table)), second[first < second]))
    table = replace(table, label=np.arange(len(table), dtype=np.int32))
    outlines = to_shapely(table.vertices, table.offsets)
    got = measured_in(table, 320, Wanted(stains=H_DAB, cells_um=5.0), picture)
    # In pixels of half a micron: whose centre is in a nucleus, and which nucleus is nearest to the others.
    half = SIDE // 2
    coarse, fine = np.full((half, half), -1), np.full((SIDE, SIDE), -1)
    for labels, size in ((coarse, 2.0), (fine, 1.0)):
        y, x = (np.mgrid[: len(labels), : len(labels)] + 0.5) * size
        for number, outline in enumerate(outlines):
            left, top, right, bottom = (int(v / size) for v in outline.bounds)
            box = Rect(top, left, bottom + 1, right + 1).slices()
            labels[box][shapely.contains_xy(outline, x[box], y[box])] = number
    rank = np.empty(len(table), int)
    rank[np.lexsort((table.centroid[:, 1], table.centroid[:, 0]))] = np.arange(len(table))
    inside, free = np.argwhere(coarse >= 0), np.argwhere(coarse < 0)
    distance, nearest = cKDTree(inside).query(free, k=8, distance_upper_bound=10.0001)
    near = np.isfinite(distance[:, 0])
    distance, nearest, free = distance[near], nearest[near], free[near]
    equal = distance < distance[:, :1] + 1e-9
    label = coarse[tuple(inside[np.where(equal, nearest, nearest[:, :1])].transpose(2, 0, 1))]
    winner = label[np.arange(len(label)), rank[label].argmin(1)]
    whole = coarse.copy()
    whole[tuple(free.T)] = winner
    ring = np.where(fine >= 0, -1, whole.repeat(2, axis=0).repeat(2, axis=1))
    vectors = np.array([*H_DAB.vectors, np.cross(*H_DAB.vectors)]).T
    density = -np.log10(np.maximum(picture, 1) / 255)
    brown = np.linalg.solve(vectors, density.reshape(-1, 3).T)[1].reshape(SIDE, SIDE)
    for number in range(len(table)):
        some = brown[ring == number]
        for name, value in (
            ("Mean", some.mean()),
            ("Median", np.median(some)),
            ("Std.Dev.", some.std(ddof=1)),
        ):
            assert got.columns[f"Cytoplasm: DAB: {name}"][number] == pytest.approx(value, rel=1e-3, abs=1e-5)


def test_names_are_those_of_the_contract(picture: NDArray[np.uint8]) -> None:
    stains = {
        f"{stain}: {of}"
        for stain in ("Hematoxylin", "Eosin")
        for of in ("Mean", "Median", "Min", "Max", "Std.Dev.")
    }
    bare = measured_in(scene(1), 512, Wanted(stains=H_E), picture)
    assert set(bare.columns) == stains
    cells = measured_in(scene(1), 512, Wanted(stains=H_E, cells_um=5.0), picture)
    assert set(cells.columns) == {f"{p}: {n}" for p in ("Nucleus", "Cytoplasm") for n in stains}
    assert EVERYTHING.measures == MEASURES
