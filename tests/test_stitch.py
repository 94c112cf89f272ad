from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsiseg.geometry import Rect
from wsiseg.measure import centroids
from wsiseg.nuclei import NucleusTable, concatenate, empty
from wsiseg.polygons import to_shapely, trace
from wsiseg.stitch import MARGIN, by_grid_row, claim, computed_cores, resolve, resolve_rows
from wsiseg.tiling import make_plan

SIZE, CORE, HALO, SCALE = 512, 128, 64, 0.15


@pytest.fixture(scope="module")
def tissue():
    """Labels of nuclei all over a plan, some of them on seams and on the corners of cores."""
    rng = np.random.default_rng(0)
    labels = np.zeros((SIZE, SIZE), np.int32)
    y, x = np.mgrid[:SIZE, :SIZE]
    spots = [(128, 128), (256, 200), (200, 256), (384, 384), (128, 60), (250, 131)]
    spots += [tuple(rng.uniform(15, SIZE - 15, 2)) for _ in range(600)]
    count = 0
    for cy, cx in spots:
        a, b = rng.uniform(6, 12, 2)
        inside = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
        if not labels[np.roll(inside, 1, 0) | np.roll(inside, -1, 1) | inside].any():
            count += 1
            labels[inside] = count
    return labels


def seen_by(labels, tile, jitter):
    """What a network that disagrees with itself by up to `jitter` pixels finds in a tile."""
    rng = np.random.default_rng(tile.index)
    padded = np.pad(labels, HALO + 128)
    dy, dx = rng.integers(-jitter, jitter + 1, 2) if jitter else (0, 0)
    outer = tile.seen.shift(HALO + 128, HALO + 128).shift(int(dy), int(dx))
    view = padded[outer.slices()]
    numbers = np.unique(view[view > 0])
    local = np.searchsorted(numbers, view) * (view > 0) + (view > 0)
    return table_of(local.astype(np.int32), tile, numbers)


def table_of(local, tile, identity):
    n = int(local.max())
    vertices, offsets = trace(local)
    centre, area = centroids(local, n)
    rng = np.random.default_rng(1)
    kinds = rng.normal(0, 2, (2000, 2))
    return NucleusTable(
        mpp=0.25,
        centroid=centre,
        area=area,
        score=np.ones(n, np.float32),
        label=np.zeros(n, np.int32),
        tile=np.full(n, tile.index, np.int32),
        vertices=vertices,
        offsets=offsets,
        embedding=np.concatenate([np.zeros((n, 2)), kinds[identity]], axis=1).astype(np.float32),
    ).shift(tile.seen.y0, tile.seen.x0)


def claims(labels, plan, jitter):
    computed = computed_cores(plan)
    return [
        claim(seen_by(labels, tile, jitter), tile, shape=plan.shape, computed=computed) for tile in plan.tiles
    ]


def f1(found, truth):
    a, b = (shapely.make_valid(to_shapely(t.vertices, t.offsets)) for t in (found, truth))
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    common = shapely.area(shapely.intersection(a[i], b[j]))
    iou = common / (shapely.area(a[i]) + shapely.area(b[j]) - common)
    return 2 * (iou > 0.5).sum() / (len(a) + len(b))


def most_overlap(found):
    a = shapely.make_valid(to_shapely(found.vertices, found.offsets))
    i, j = shapely.STRtree(a).query(a, predicate="intersects")
    i, j = i[i < j], j[i < j]
    common = shapely.area(shapely.intersection(a[i], a[j]))
    return (common / np.minimum(shapely.area(a[i]), shapely.area(a[j]))).max(initial=0)


def whole(labels):
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=SIZE, halo=HALO)
    return seen_by(labels, next(plan.tiles), 0)


@pytest.mark.parametrize("jitter", [0, 1, 2])
def test_every_nucleus_once_and_none_doubled(tissue, jitter):
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO)
    found = resolve(concatenate(claims(tissue, plan, jitter)), plan, scale=SCALE)
    assert f1(found, whole(tissue)) >= 0.99
    assert most_overlap(found) <= 0.3
    if not jitter:
        assert len(found) == tissue.max()
    assert found.embedding is None


def test_without_the_margin_jitter_loses_nuclei(tissue):
    """The margin is needed: with none of it this law fails."""
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO)
    computed = computed_cores(plan)
    tables = [
        claim(seen_by(tissue, t, 2), t, shape=plan.shape, computed=computed, margin=0) for t in plan.tiles
    ]
    assert MARGIN > 0
    assert len(resolve(concatenate(tables), plan, scale=SCALE)) < tissue.max()


def test_the_order_in_which_tiles_arrive_changes_nothing(tissue):
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO)
    tables = claims(tissue, plan, 2)
    first = resolve(concatenate(tables), plan, scale=SCALE)
    second = resolve(
        concatenate([tables[i] for i in np.random.default_rng(0).permutation(len(tables))]), plan, scale=SCALE
    )
    for name in ("centroid", "area", "tile", "vertices", "offsets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_nuclei_in_cores_without_a_tile_belong_to_the_nearest(tissue):
    """Every other core is computed; what the tiles see beyond theirs is kept once."""
    plan = make_plan(
        (SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO, keep=lambda core: (core.y0 + core.x0) // CORE % 2 == 0
    )
    found = resolve(concatenate(claims(tissue, plan, 1)), plan, scale=SCALE)
    everything = whole(tissue)
    seen = np.zeros(len(everything), bool)
    bounds = everything.bounds()
    for tile in plan.tiles:
        inner = tile.seen.grow(-3)
        corners = (bounds[:, :2], bounds[:, 2:])
        seen |= inner.contains(corners[0]) & inner.contains(corners[1])
    assert f1(found, everything.take(seen)) >= 0.93
    assert most_overlap(found) <= 0.3


def square(y, x, side, tile, embedding):
    n = empty(0.25, dim=3)
    ring = np.array([[y, x], [y, x + side], [y + side, x + side], [y + side, x]], np.float32)
    return replace(
        n,
        centroid=np.array([[y + side / 2, x + side / 2]]),
        area=np.array([float(side**2)]),
        score=np.ones(1, np.float32),
        label=np.zeros(1, np.int32),
        tile=np.array([tile], np.int32),
        vertices=ring,
        offsets=np.array([0, 4]),
        embedding=np.array([embedding], np.float32),
    )


@pytest.fixture
def plan():
    return make_plan((128, 256), mpp=0.25, core=128, halo=64)


def test_much_overlap_drops_the_shallower(plan):
    tables = [square(50, 100, 20, 0, [0, 0, 9]), square(50, 112, 20, 1, [0, 0, 0])]
    found = resolve(concatenate(tables), plan)
    assert found.tile.tolist() == [0]


def test_little_overlap_goes_to_the_first_unless_embeddings_agree(plan):
    tables = [square(50, 105, 20, 0, [0, 0, 9]), square(50, 122, 20, 1, [0, 0, 0])]
    found = resolve(concatenate(tables), plan)
    assert sorted(found.area.tolist()) == [340, 400]
    # Embeddings that say "the same": the offsets make up for the distance of the centroids.
    tables = [square(50, 105, 20, 0, [0, 8.5 * 0.15, 0]), square(50, 122, 20, 1, [0, -8.5 * 0.15, 0])]
    found = resolve(concatenate(tables), plan)
    assert found.area.tolist() == [740]


def test_a_nucleus_that_took_in_a_piece_meets_later_claims_with_all_of_it(plan):
    """The third overlaps only the piece, which is a nucleus of its own no more."""
    tables = [
        square(50, 102, 20, 0, [0, 8.5 * 0.15, 0]),
        square(50, 119, 20, 1, [0, -8.5 * 0.15, 0]),
        square(50, 124, 14, 0, [0, 0, 9]),
    ]
    found = resolve(concatenate(tables), plan)
    assert found.area.tolist() == [740]


def test_a_claim_that_covers_another_nucleus_is_dropped_though_it_could_be_united(plan):
    tables = [
        square(50, 96, 20, 0, [0, 0, 0]),
        square(50, 119, 6, 0, [0, 0, 9]),
        square(50, 115, 20, 1, [0, -9.5 * 0.15, 0]),
    ]
    assert resolve(concatenate(tables), plan).area.tolist() == [400, 36]


def no_two_overlap(squares):
    """Those squares (tile, y, x, side, embedding) that overlap none of their tile before them."""
    kept = []
    for tile, y, x, side, embedding in squares:
        box = shapely.box(x, y, x + side, y + side)
        if all(tile != other or box.intersection(b).area == 0 for other, b, _ in kept):
            kept.append((tile, box, square(float(y), float(x), side, tile, [0, 0, embedding])))
    return [table for _, _, table in kept]


CLAIM = st.tuples(
    st.integers(0, 3), st.integers(100, 136), st.integers(100, 136), st.integers(8, 23), st.floats(-2, 2)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(CLAIM, min_size=2, max_size=24))
def test_whatever_is_claimed_no_pair_overlaps_by_more_than_the_share(squares):
    """Where four cores meet, with embeddings that often agree: pieces are united, cut and dropped."""
    plan = make_plan((256, 256), mpp=0.25, core=128, halo=64)
    tables = no_two_overlap(squares)
    found = resolve(concatenate(tables), plan)
    assert 1 <= len(found) <= len(tables)
    assert most_overlap(found) <= 0.3


def test_far_out_in_a_slide_nothing_changes(tissue):
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO)
    near = resolve(concatenate(claims(tissue, plan, 1)), plan, scale=SCALE)
    rows, columns = 1600, 1600
    far = replace(plan, grid=(rows + 4, columns + 4), shape=((rows + 4) * CORE, (columns + 4) * CORE))
    moved = []
    for table in claims(tissue, plan, 1):
        row, column = np.divmod(table.tile, plan.grid[1])
        tile = ((row + rows) * far.grid[1] + column + columns).astype(np.int32)
        moved.append(replace(table.shift(rows * CORE, columns * CORE), tile=tile))
    there = resolve(concatenate(moved), far, scale=SCALE).shift(-rows * CORE, -columns * CORE)
    assert len(there) == len(near)
    np.testing.assert_allclose(there.centroid, near.centroid, atol=0.02)


def test_nothing_is_nothing(plan):
    assert len(resolve(empty(0.25, dim=16), plan)) == 0
    assert len(claim(empty(0.25), next(plan.tiles), shape=plan.shape, computed=computed_cores(plan))) == 0


def test_what_lies_outside_the_plan_is_nobodys(plan):
    tile = next(plan.tiles)
    beyond = square(-30, 50, 20, 0, [0, 0, 0])
    assert len(claim(beyond, tile, shape=plan.shape, computed=np.array([[True, False]]))) == 0
    assert Rect(0, 0, *plan.shape).contains(beyond.centroid).tolist() == [False]


@pytest.mark.parametrize(("core", "halo"), [(128, 64), (64, 64), (64, 128), (256, 64)])
@pytest.mark.parametrize("jitter", [1, 4])
def test_row_by_row_is_as_all_at_once(tissue, core, halo, jitter):
    """Also where cores are smaller than halos, and where crowds of nuclei reach over several rows."""
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=core, halo=halo)
    tables = claims(tissue, plan, jitter)
    once = resolve(concatenate(tables), plan, scale=SCALE)
    # Three tiles to a task, so that a task may lie in two rows, as it may in the store.
    tasks = [concatenate(tables[i : i + 3]) for i in range(0, len(tables), 3)]
    rows = list(resolve_rows(by_grid_row(tasks, plan), plan, scale=SCALE))
    assert len(rows) > 1 or plan.grid[0] == 2
    found = concatenate(rows)
    for name in ("centroid", "area", "tile", "vertices", "offsets", "score"):
        np.testing.assert_array_equal(getattr(found, name), getattr(once, name))


def test_a_chain_of_claims_over_all_rows_is_decided_as_one(tissue):
    """Nuclei that touch all along a seam of columns: nothing of it is known before the last row."""
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=CORE, halo=HALO)
    labels = np.zeros((SIZE, SIZE), np.int32)
    for number, y in enumerate(range(0, SIZE, 12)):
        labels[y : y + 12, CORE - 8 : CORE + 8] = number + 1
    tables = claims(labels, plan, 1)
    once = resolve(concatenate(tables), plan, scale=SCALE)
    rows = list(resolve_rows(by_grid_row(tables, plan), plan, scale=SCALE))
    assert len(rows) == 1
    np.testing.assert_array_equal(rows[0].vertices, once.vertices)


def test_no_more_than_a_few_rows_are_held(tissue):
    plan = make_plan((SIZE, SIZE), mpp=0.25, core=64, halo=64)
    tables = claims(tissue, plan, 1)
    taken = []

    def rows():
        for table in by_grid_row(tables, plan):
            taken.append(int(table.tile[0]) // plan.grid[1])
            yield table

    for found in resolve_rows(rows(), plan, scale=SCALE):
        assert taken[-1] - int(found.tile[0]) // plan.grid[1] <= 4
