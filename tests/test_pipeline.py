"""The pipeline on a drawn slide: every disc is found, however it is cut, run, stopped or written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.spatial import cKDTree
from slides_made import discs, tiny_model, write_slide

import wsiseg
from wsiseg import job as jobs
from wsiseg import measure, nuclei, polygons, worker
from wsiseg.computing import begun_once, compute
from wsiseg.errors import ConfigError, ModelError, OutputError, RegionError, StoreError, TaskError
from wsiseg.execute import Executor, cores, dask_local, threads
from wsiseg.export.zarr import read_store
from wsiseg.job import Job
from wsiseg.measure import AMBIGUOUS
from wsiseg.models import ModelRef, describe
from wsiseg.nuclei import NucleusTable
from wsiseg.outlines import read_outlines
from wsiseg.outputs import convert
from wsiseg.pipeline import segment_slide
from wsiseg.progress import Progress
from wsiseg.qupath import check_file
from wsiseg.regions import Region, region_mask
from wsiseg.result import pieces, to_level0
from wsiseg.slides.slide import SlideRef
from wsiseg.stitch import claim, computed_cores, resolve
from wsiseg.store import WorkingStore, to_arrays, working_store
from wsiseg.survey import survey, touched
from wsiseg.tiling import Tile, TilePlan, make_plan

SHAPE = (500, 420)


@pytest.fixture(scope="module")
def truth() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    return discs(SHAPE)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, truth: tuple[NDArray[np.uint8], object]) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "drawn.tif", truth[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def same(a: NucleusTable, b: NucleusTable) -> bool:
    left, right = to_arrays(a), to_arrays(b)
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def found_once(table: NucleusTable, centres: NDArray[np.float64], *, within: float = 1.5) -> bool:
    distance, index = cKDTree(table.centroid).query(centres)
    return len(table) == len(centres) == len(np.unique(index)) and bool(np.all(distance < within))


def roi_file(path: Path, x0: int, y0: int, x1: int, y1: int) -> Path:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    path.write_text(json.dumps(feature))
    return path


# The seam: a toy in place of the worker, so that what drives it is tested without a network.


def toy(picture: NDArray[np.uint8], plan: TilePlan, tiles: tuple[Tile, ...]) -> NucleusTable:
    padded = np.pad(picture[..., 0], plan.core + plan.halo, constant_values=255)
    found = []
    for tile in tiles:
        labels, _ = label(
            padded[tile.outer.shift(plan.core + plan.halo, plan.core + plan.halo).slices()] < 150
        )
        vertices, offsets = polygons.trace(labels)
        count = len(offsets) - 1
        centroid, area = measure.centroids(labels, count)
        table = NucleusTable(
            mpp=plan.mpp,
            centroid=centroid,
            area=area,
            score=np.ones(count, np.float32),
            label=np.zeros(count, np.int32),
            tile=np.full(count, tile.index, np.int32),
            vertices=vertices,
            offsets=offsets,
        ).shift(tile.outer.y0, tile.outer.x0)
        found.append(claim(table, tile, shape=plan.shape, computed=computed_cores(plan)))
    return nuclei.concatenate(found)


def toy_that_fails(picture: NDArray[np.uint8], plan: TilePlan, tiles: tuple[Tile, ...]) -> NucleusTable:
    if tiles[0].index == 4 * 2:
        raise ValueError("no such luck")
    return toy(picture, plan, tiles)


def merged(store: WorkingStore, plan: TilePlan) -> NucleusTable:
    return resolve(nuclei.concatenate(list(store.tables())), plan)


@pytest.mark.parametrize("backend", [threads, dask_local])
def test_any_executor_finds_what_a_plain_loop_does(
    backend: object, truth: tuple[NDArray[np.uint8], NDArray[np.float64]], tmp_path: Path
) -> None:
    plan = make_plan(SHAPE, mpp=0.25, core=192, halo=64)
    work = partial(toy, truth[0], plan)
    loop = resolve(nuclei.concatenate([work(task) for task in plan.tasks]), plan)
    start = partial(backend.start, workers=2, threads_per_worker=1)  # type: ignore[attr-defined]
    with working_store(tmp_path / "s", {}) as store:
        claims = list(compute(plan, work, store, start))
        assert same(nuclei.concatenate(claims), nuclei.concatenate([work(task) for task in plan.tasks]))
        assert same(merged(store, plan), loop)
        assert found_once(loop, truth[1])


def test_a_failed_task_leaves_the_others_and_only_the_rest_is_computed_again(
    truth: tuple[NDArray[np.uint8], NDArray[np.float64]], tmp_path: Path
) -> None:
    plan = make_plan(SHAPE, mpp=0.25, core=128, halo=64)
    start = partial(threads.start, workers=1)
    with working_store(tmp_path / "s", {}) as store:
        with pytest.raises(TaskError, match="task 4 failed with ValueError: no such luck"):
            list(compute(plan, partial(toy_that_fails, truth[0], plan), store, start))
        kept = store.done()
        assert kept >= {0, 1, 2, 3}
        assert 4 not in kept
        seen: list[Progress] = []
        claims = list(compute(plan, partial(toy, truth[0], plan), store, start, seen.append))
        assert same(nuclei.concatenate(claims), nuclei.concatenate(list(store.tables())))
        assert len(seen) == len(plan.tasks) - len(kept)
        assert seen[-1].done == seen[-1].total == plan.n_tiles
        assert seen[-1].nuclei == sum(len(table) for table in store.tables())
        assert found_once(merged(store, plan), truth[1])


def test_nothing_is_started_when_all_is_done(tmp_path: Path) -> None:
    def never() -> AbstractContextManager[Executor]:
        raise AssertionError

    plan = make_plan((0, 0), mpp=0.25, core=128, halo=64)
    with working_store(tmp_path / "s", {}) as store:
        assert not list(compute(plan, lambda tiles: nuclei.empty(0.25), store, never))


def test_what_is_finished_is_given_while_the_rest_is_computed(tmp_path: Path) -> None:
    plan = make_plan((512, 512), mpp=0.25, core=128, halo=64)
    start, seen = partial(threads.start, workers=1), list[int]()
    with working_store(tmp_path / "s", {}) as store:
        for _ in compute(plan, lambda tiles: nuclei.empty(0.25), store, start):
            seen.append(len(store.done()))
    # No more than two tasks are in flight, and one is given back.
    assert all(task < done <= task + 3 for task, done in enumerate(seen))
    assert len(seen) == len(plan.tasks) > 4


# The whole.


def test_every_disc_is_found_once(
    slide: Path, model: Path, truth: tuple[object, NDArray[np.float64]]
) -> None:
    result = segment_slide(slide, model=model, tile_size=192)
    assert result.survey.plan.n_tiles > 4
    assert found_once(result.nuclei, truth[1])
    assert result.nuclei.mpp == pytest.approx(0.25)
    assert result.nuclei.embedding is None
    assert {"Area µm^2", "Circularity"} <= set(result.nuclei.columns)


def test_coordinates_are_those_of_level_0(model: Path, tmp_path: Path) -> None:
    picture, centres = discs((480, 400), step=50)
    coarse = write_slide(tmp_path / "coarse.tif", picture[::2, ::2].copy(), mpp=0.5)
    result = segment_slide(coarse, model=model, tile_size=128)
    assert found_once(result.nuclei, centres / 2)
    area = np.median(result.nuclei.area) * 0.5**2
    assert area == pytest.approx(np.median(result.nuclei.columns["Area µm^2"]), rel=0.1)
    assert area == pytest.approx(np.pi * 7.5**2 * 0.25**2, rel=0.25)


def test_tiles_of_any_size_and_any_number_of_workers_agree(
    slide: Path, model: Path, truth: tuple[object, NDArray[np.float64]]
) -> None:
    one = segment_slide(slide, model=model, tile_size=128, workers=1).nuclei
    assert same(one, segment_slide(slide, model=model, tile_size=128, workers=3, batch_size=1).nuclei)
    assert found_once(segment_slide(slide, model=model, tile_size=320).nuclei, truth[1])


def test_threads_and_processes_give_identical_nuclei(slide: Path, model: Path) -> None:
    measures = ("shape", "stain", "context")
    options = {"model": model, "tile_size": 256, "workers": 1, "measure": measures, "cells_um": 2.0}
    here = segment_slide(slide, executor="threads", **options).nuclei  # type: ignore[arg-type]
    there = segment_slide(slide, executor="dask_local", **options).nuclei  # type: ignore[arg-type]
    assert len(here)
    assert same(here, there)


class Stop(Exception):  # it stands for Ctrl-C
    """Raised from outside, in the middle."""


def test_a_stopped_run_goes_on_to_the_same_bytes(slide: Path, model: Path, tmp_path: Path) -> None:
    names = ("out.geojson", "out.geojson.gz", "out.zip")
    whole, resumed = ([tmp_path / folder / name for name in names] for folder in "ab")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    segment_slide(slide, model=model, tile_size=128, outputs=whole)

    def stop(now: Progress) -> None:
        if now.done >= 8:
            raise Stop

    with pytest.raises(Stop):
        segment_slide(slide, model=model, tile_size=128, outputs=resumed, progress=stop)
    assert not any(path.exists() for path in resumed)
    first: list[Progress] = []
    segment_slide(slide, model=model, tile_size=128, outputs=resumed, workers=1, progress=first.append)
    assert first[0].done > 8
    assert [path.read_bytes() for path in resumed] == [path.read_bytes() for path in whole]
    assert sorted((tmp_path / "b").iterdir()) == resumed


def test_a_stopped_run_of_other_settings_is_refused_or_replaced(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    def stop(_: Progress) -> None:
        raise Stop

    out = tmp_path / "out.geojson"
    with pytest.raises(Stop):
        segment_slide(slide, model=model, tile_size=128, outputs=[out], progress=stop)
    with pytest.raises(StoreError, match=r"threshold was None, now 0\.4; tile_size was 128, now 192"):
        segment_slide(slide, model=model, tile_size=192, threshold=0.4, outputs=[out])
    segment_slide(slide, model=model, tile_size=192, threshold=0.4, outputs=[out], overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out.geojson"]


def test_work_is_kept_in_the_folder_that_was_named(slide: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()

    def stop(_: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        segment_slide(
            *(slide,),
            model=model,
            outputs=[tmp_path / "out.zip"],
            work_dir=tmp_path / "work",
            tile_size=128,
            progress=stop,
        )
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".out.zip.wsiseg"]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_only_nuclei_inside_the_regions_are_kept(
    slide: Path, model: Path, truth: tuple[object, NDArray[np.float64]], tmp_path: Path
) -> None:
    roi = roi_file(tmp_path / "roi.geojson", 100, 150, 333, 410)
    result = segment_slide(slide, model=model, tile_size=128, roi=roi)
    y, x = truth[1].T
    inside = (x > 100) & (x < 333) & (y > 150) & (y < 410)
    assert (
        abs(len(result.nuclei) - inside.sum()) <= 2
    )  # a centre on the very border may be seen on either side
    near = np.asarray(cKDTree(truth[1][inside]).query(result.nuclei.centroid)[0]) < 1.5
    assert near.sum() >= inside.sum() - 2
    assert result.survey.plan.n_tiles < 4 * 4
    assert len(result.info.regions) == 1
    # Pixels of the thumbnail that a region meets in part count in part: densities are made of this.
    small = roi_file(tmp_path / "small.geojson", 101, 150, 122, 161)
    found = survey(SlideRef(str(slide)), describe(model), roi=small)
    assert found.tissue_mm2 == pytest.approx(21 * 11 * found.mpp**2 / 1e6, rel=0.1)


def test_specks_off_the_tissue_are_left_out_by_tiles_of_any_size(
    model: Path, truth: tuple[NDArray[np.uint8], NDArray[np.float64]], tmp_path: Path
) -> None:
    picture, centres = truth
    y, x = centres[len(centres) // 2].astype(int)
    pixels = np.full((900, 1200, 3), 250, np.uint8)
    pixels[: SHAPE[0], : SHAPE[1]] = picture
    pixels[700:740, 1000:1040] = picture[y - 20 : y + 20, x - 20 : x + 20]
    slide = write_slide(tmp_path / "speck.tif", pixels)
    small, large = (
        segment_slide(slide, model=model, tile_size=size, measure=("shape", "context"))
        for size in (128, 1216)
    )
    assert (large.survey.plan.n_tiles, small.survey.tissue_mm2) == (1, large.survey.tissue_mm2)
    for result in (small, large):
        assert found_once(result.nuclei, centres)
        assert result.survey.processed(result.nuclei.centroid).all()
    # Whoever draws a region says that there is something in it; the smallest has no pixel of the thumbnail of its own.
    for half in (20, 1):
        roi = roi_file(tmp_path / "roi.geojson", 1020 - half, 720 - half, 1020 + half, 720 + half)
        result = segment_slide(slide, model=model, tile_size=128, roi=roi)
        assert found_once(result.nuclei, np.array([[720.0, 1020.0]]))


def test_a_region_thinner_than_a_pixel_of_the_thumbnail_meets_every_tile_it_crosses() -> None:
    line = np.linspace((3.0, 5.0), (61.0, 90.0), 1000)
    sliver = Region(np.array([[3.0, 5.0], [61.0, 90.0], [61.0, 90.1]]) * 32)
    where = touched([sliver], region_mask([sliver], (64, 96), scale=32), scale=32)
    assert where[tuple(line.astype(int).T)].all()
    assert where.mean() < 0.1


def test_glass_gives_empty_valid_files_and_a_warning(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    glass = write_slide(tmp_path / "glass.tif", np.full((600, 500, 3), 250, np.uint8))
    outputs = [tmp_path / f"out{suffix}" for suffix in (".geojson", ".geojson.gz", ".zip", ".zarr")]
    with caplog.at_level(logging.WARNING, logger="wsiseg"):
        result = segment_slide(glass, model=model, outputs=outputs)
    assert "no tissue" in caplog.text
    assert len(result.nuclei) == 0
    assert json.loads(outputs[0].read_text())["features"] == []
    assert convert(outputs[3], tmp_path / "again.geojson") == 0
    assert (tmp_path / "again.geojson").read_bytes() == outputs[0].read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_store_exports_to_the_bytes_that_were_written_at_once(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    direct, store, later = (tmp_path / name for name in ("a.geojson", "a.zarr", "b.geojson"))
    result = segment_slide(slide, model=model, tile_size=256, outputs=[direct, store], measure=["stain"])
    assert convert(store, later) == len(result.nuclei)
    assert later.read_bytes() == direct.read_bytes()
    assert result.write(tmp_path / "c.geojson") == len(result.nuclei)
    assert (tmp_path / "c.geojson").read_bytes() == direct.read_bytes()
    assert sum(file.is_file() for file in store.rglob("*")) <= 50
    assert read_store(store)[0].shape == result.survey.shape


def test_measurements_are_those_asked_for(slide: Path, model: Path) -> None:
    def columns(*names: str) -> set[str]:
        return set(segment_slide(slide, model=model, tile_size=448, measure=names).nuclei.columns)

    assert columns() == {AMBIGUOUS}
    assert columns("shape", "stain") > {"Hematoxylin: Mean", "Eosin: Std.Dev."}
    assert columns("context") == {AMBIGUOUS, "Nearest neighbor distance µm", "Nuclei per mm^2 within 50 µm"}
    cells = segment_slide(
        slide, model=model, tile_size=192, measure=("shape", "stain"), stains="h-dab", cells_um=3.0
    ).nuclei
    assert cells.cells is not None
    assert len(cells.cells) == len(cells)
    assert len(cells.columns) == 6 + 6 + 1 + 20 + 1
    assert {"Cell: Area µm^2", "Nucleus/Cell area ratio", "Cytoplasm: DAB: Median"} < set(cells.columns)
    assert (cells.columns["Cell: Area µm^2"] > cells.columns["Nucleus: Area µm^2"]).all()


def test_cells_are_in_every_output_and_come_back(slide: Path, model: Path, tmp_path: Path) -> None:
    names = ("a.geojson", "a.geojson.gz", "a.zip", "a.zarr")
    outputs = [tmp_path / name for name in names]
    result = segment_slide(
        *(slide,), model=model, tile_size=192, outputs=outputs, measure=("shape", "context"), cells_um=5.0
    )
    found = [problem for path in outputs[:3] for problem in check_file(path)]
    assert [(problem.severity, problem.rule[:2]) for problem in found] == [("warning", "17")] * 3
    again = tmp_path / "b.geojson"
    assert convert(outputs[3], again) == len(result.nuclei)
    assert again.read_bytes() == outputs[0].read_bytes()
    features = [
        f for f in json.loads(again.read_text())["features"] if f["properties"]["objectType"] == "cell"
    ]
    assert len(features) == len(result.nuclei)
    for feature in features:
        cell, nucleus = (
            shapely.Polygon(feature[key]["coordinates"][0]) for key in ("geometry", "nucleusGeometry")
        )
        assert cell.intersection(nucleus).area > 0.9 * nucleus.area
    drawn = shapely.STRtree([shapely.Polygon(f["geometry"]["coordinates"][0]) for f in features])
    first, second = drawn.query(drawn.geometries, predicate="intersects")
    common = shapely.area(shapely.intersection(drawn.geometries[first], drawn.geometries[second]))
    # Corners of files lie on a grid of a quarter of a pixel.
    assert common[first < second].max(initial=0) < 0.01 * shapely.area(drawn.geometries).min()
    (rings,) = read_outlines(again).values()
    assert len(rings) == 2 * len(features)


def test_a_resumed_run_is_held_against_its_stains_and_cells(slide: Path, model: Path, tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.done >= 8:
            raise Stop

    options = {"model": model, "tile_size": 128, "measure": ("stain",), "outputs": [tmp_path / "a.geojson"]}
    with pytest.raises(Stop):
        segment_slide(slide, stains="h-e", progress=stop, **options)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"cells_um was None, now 2\.0; stains was .*0\.65111.*DAB"):
        segment_slide(slide, stains="h-dab", cells_um=2.0, **options)  # type: ignore[arg-type]
    segment_slide(slide, stains="h-e", **options)  # type: ignore[arg-type]


def test_workers_begin_once_for_tiles_and_cells(truth: tuple[NDArray[np.uint8], object]) -> None:
    started = []

    @contextmanager
    def start() -> Iterator[Executor]:
        started.append("begun")
        with threads.start(workers=1) as pool:
            yield pool
        started.append("ended")

    with begun_once(start) as begin:
        assert started == []
        for _ in range(2):
            with begin() as pool:
                assert list(pool.map(str, [1])) == [(0, "1")]
        assert started == ["begun"]
    assert started == ["begun", "ended"]


def test_a_threshold_and_a_smallest_area_are_heeded(slide: Path, model: Path) -> None:
    assert len(segment_slide(slide, model=model, tile_size=448, min_area_um2=30).nuclei) == 0
    every = segment_slide(slide, model=model, tile_size=448).nuclei
    strict = segment_slide(slide, model=model, tile_size=448, threshold=0.999).nuclei
    assert strict.area.sum() < every.area.sum()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"executor": "slurm"}, ConfigError, "execute has no 'slurm'.*dask_local, dask_slurm, threads"),
        ({"workers": 0}, ConfigError, "workers 0 is not between 1 and"),
        ({"batch_size": 0}, ConfigError, "batch_size 0"),
        ({"threshold": 1.5}, ConfigError, r"threshold 1\.5 is not between 0 and 1"),
        ({"min_area_um2": -1.0}, ConfigError, "min_area_um2 -1"),
        ({"measure": ["size"]}, ConfigError, "measure 'size' is unknown; choose from shape, stain, context"),
        ({"cells_um": 0.0}, ConfigError, r"cells_um 0 is not between 0\.5 and 25"),
        ({"stains": "h&e"}, ConfigError, "--stains 'h&e': give estimate"),
        ({"tile_size": 1000}, ConfigError, "960 and 1024"),
        ({"model": "nothing"}, ModelError, "no such model"),
        ({"roi": "nothing.geojson"}, RegionError, r"nothing\.geojson"),
        ({"outputs": ["/proc/out.geojson"]}, OutputError, "cannot be written"),
        ({"outputs": ["nowhere/out.geojson"]}, OutputError, "nowhere"),
        ({"outputs": ["out.shp"]}, OutputError, r"\.geojson"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(
    options: dict[str, object], error: type[Exception], message: str, slide: Path, model: Path
) -> None:
    with pytest.raises(error, match=message):
        segment_slide(slide, **{"model": model, **options})  # type: ignore[arg-type]


def test_an_output_that_exists_is_kept_unless_it_is_to_be_replaced(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.geojson"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        segment_slide(slide, model=model, outputs=[out])
    assert out.read_text() == "mine"
    segment_slide(slide, model=model, tile_size=448, outputs=[out], overwrite=True)
    assert json.loads(out.read_text())["type"] == "FeatureCollection"


def test_the_slide_is_never_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(OutputError, match="is what is being read"):
        segment_slide(tmp_path / "a.zarr", model=model, outputs=[tmp_path / "a.zarr"], overwrite=True)


def test_the_slide_is_closed_when_the_run_is_over(slide: Path, model: Path) -> None:
    segment_slide(slide, model=model, tile_size=448)
    assert not jobs._slides


def test_a_broken_tile_is_named(slide: Path, model: Path) -> None:
    def broken(*_: object) -> NucleusTable:
        raise ValueError("bad tile\nand more")

    plan = make_plan(SHAPE, mpp=0.25, core=128, halo=64)
    job = Job(
        run="test",
        slide=SlideRef(str(slide)),
        slide_mpp=0.25,
        model=ModelRef("spn_ien", str(model)),
        mpp=0.25,
        own=broken,
        settings=jobs.Settings(),
        threads=1,
    )
    message = r"drawn\.tif: tiles 2 to 3, from \(y, x\) = \(0, 256\) of the plan: ValueError: bad tile$"
    with pytest.raises(TaskError, match=message):
        worker.segment_batch(job, plan.tasks[1])
    jobs.release(job)


def test_pieces_are_the_table() -> None:
    table = nuclei.empty(0.25)
    assert list(pieces(table)) == []


def test_scaling_keeps_areas_in_step_with_outlines() -> None:
    square = NucleusTable(
        mpp=0.25,
        centroid=np.array([[2.0, 4.0]]),
        area=np.array([16.0]),
        score=np.ones(1, np.float32),
        label=np.zeros(1, np.int32),
        tile=np.zeros(1, np.int32),
        vertices=np.array([[0, 2], [0, 6], [4, 6], [4, 2]], np.float32),
        offsets=np.array([0, 4]),
    )
    half = to_level0(square, scale=0.5, mpp=0.5)
    assert half.area.tolist() == [4.0]
    assert half.centroid.tolist() == [[1.0, 2.0]]
    assert half.vertices.max(axis=0).tolist() == [2.0, 3.0]
    assert half.vertices.dtype == np.float32


def test_cores_heed_what_the_user_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "no number")
    assert cores() >= 1


def test_the_package_gives_both_functions_late() -> None:
    assert wsiseg.segment is segment_slide
    with pytest.raises(AttributeError, match="nothing"):
        _ = wsiseg.nothing
