"""Cohorts of drawn slides: planned, shared out, run, stopped, lost, retried, merged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slides_made import discs, tiny_model, write_slide
from typer.testing import CliRunner, Result

from wsiseg.cli.app import app
from wsiseg.cohort.lease import acquire
from wsiseg.cohort.manifest import read_manifest
from wsiseg.cohort.outcome import outcome_path, read_outcome
from wsiseg.cohort.plan import Options, Plan, Planned, in_order, make_plan, read_plan, write_plan
from wsiseg.cohort.run import run_cohort, take
from wsiseg.cohort.slide import Means, lease_path, place_of
from wsiseg.cohort.status import retry, status
from wsiseg.cohort.stop import Stop as Listener
from wsiseg.cohort.submission import requeue
from wsiseg.cohort.tables import nuclei_of, write_nuclei, write_slides
from wsiseg.errors import DataError, OutputError, StoreError, TaskError
from wsiseg.pipeline import segment_slide

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of different sizes, and a text that is none."""
    made = tmp_path_factory.mktemp("slides")
    for number, side in enumerate((260, 500, 380)):
        write_slide(made / f"s{number}.tif", discs((side, 300), seed=number)[0])
    (made / "broken.svs").write_text("no slide")
    return made


def planned(source: Path | str, results: Path, model: Path, **options: object) -> Plan:
    plan = make_plan(read_manifest(source), results, Options(str(model), tile_size=192, **options))
    return write_plan(plan)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["cohort", *map(str, arguments)])


def states(plan: Plan) -> list[str]:
    return [row.state for row in status(plan).rows]


# The manifest.


def test_a_table_names_slides_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("slide,slide_mpp,roi\na.svs,0.25,r.geojson\nhttps://x/b.tif,,\n")
    first, second = read_manifest(tmp_path / "m.csv")
    assert (first.slide, first.slide_mpp, first.roi) == (
        str(tmp_path / "a.svs"),
        "0.25",
        str(tmp_path / "r.geojson"),
    )
    assert second.slide == "https://x/b.tif"
    assert second.where == "m.csv, line 3"


def test_a_folder_and_a_pattern_name_slides(folder: Path) -> None:
    names = [Path(entry.slide).name for entry in read_manifest(folder)]
    assert names == ["broken.svs", "s0.tif", "s1.tif", "s2.tif"]
    assert len(read_manifest(f"{folder}/s*.tif")) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slides\na\n", "unknown column 'slides'"),
        ("slide_mpp\n1\n", "no column 'slide'"),
        ("slide\n", "no slide found"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_manifest(tmp_path / "m.csv")


def test_nothing_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no slide found"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="no slide found"):
        read_manifest(tmp_path / "*.svs")


# The plan.


def test_what_is_wrong_with_a_slide_stops_no_other(folder: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "slide,slide_mpp,model,output\n"
        f"{folder}/s0.tif,,,\n"
        f"{folder}/none.tif,,,\n"
        f"{folder}/s1.tif,much,,\n"
        f"{folder}/s2.tif,,no-such-model,\n"
        f"{folder}/s2.tif,,,../up.geojson\n"
        f"{folder}/s2.tif,,,b.docx\n"
        ",,,\n"
        f"{folder}/s1.tif,,,same.zip\n{folder}/s2.tif,,,same.zip\n"
    )
    plan = planned(tmp_path / "m.csv", tmp_path / "r", model)
    assert [slide.number for slide in plan.good] == [0]
    problems = [slide.problem for slide in plan.slides[1:]]
    told = (
        "no such file",
        "is no number",
        "no-such-model",
        "not below",
        "nothing writes",
        "names no slide",
        "too",
        "too",
    )
    for problem, words in zip(problems, told, strict=True):
        assert words in problem
    assert plan.slides[0].tiles > 1
    assert plan.slides[0].seconds > 0
    assert read_plan(tmp_path / "r") == plan


def test_slides_of_one_name_and_two_suffixes_have_two_results(model: Path, tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif", discs((300, 300))[0])
    shutil.copy(tmp_path / "a.tif", tmp_path / "a.svs")
    plan = planned(tmp_path, tmp_path / "r", model)
    assert [slide.output for slide in plan.good] == ["a.svs.geojson", "a.tif.geojson"]


def test_an_update_keeps_numbers_and_refuses_other_options(folder: Path, model: Path, tmp_path: Path) -> None:
    before = planned(f"{folder}/s[12].tif", tmp_path, model)
    entries = read_manifest(f"{folder}/s*.tif")
    with pytest.raises(DataError, match="--update"):
        write_plan(before)
    options = Options(str(model), tile_size=192)
    after = write_plan(make_plan(entries, tmp_path, options), update=True)
    assert {Path(s.slide).name: s.number for s in after.slides} == {"s0.tif": 2, "s1.tif": 0, "s2.tif": 1}
    with pytest.raises(DataError, match="other options"):
        write_plan(make_plan(entries, tmp_path, Options(str(model), tile_size=256)), update=True)


def test_an_update_adds_and_what_ended_stays(folder: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(f"{folder}/s[01].tif", tmp_path, model)
    run_cohort(plan, Means())
    options = Options(str(model), tile_size=192)
    more = write_plan(make_plan(read_manifest(f"{folder}/s2.tif"), tmp_path, options), update=True)
    assert [Path(slide.slide).name for slide in more.slides] == ["s0.tif", "s1.tif", "s2.tif"]
    assert states(more) == ["done", "done", "todo"]
    (tmp_path / "m.csv").write_text(f"slide,slide_mpp\n{folder}/s0.tif,0.5\n")
    with pytest.raises(DataError, match="has ended with another"):
        write_plan(make_plan(read_manifest(tmp_path / "m.csv"), tmp_path, options), update=True)


def test_what_all_share_is_checked_at_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing writes"):
        make_plan(read_manifest(folder), tmp_path, Options(suffix=".docx"))


@pytest.mark.parametrize("content", [None, "{", '{"format": "other"}', '{"format": "wsiseg-cohort-1"}'])
def test_a_folder_without_a_good_plan_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cohort.json").write_text(content)
    with pytest.raises(DataError, match=r"cohort\.json"):
        read_plan(tmp_path)


@given(st.lists(st.floats(0, 1e4), max_size=30), st.integers(1, 7))
def test_shares_are_even_and_every_process_knows_all_slides(costs: list[float], count: int) -> None:
    slides = [Planned(number, "s", seconds=cost) for number, cost in enumerate(costs)]
    orders = [in_order(slides, index, count) for index in range(count)]
    assert all(sorted(s.number for s in order) == [*range(len(slides))] for order in orders)
    first = [order[0].number for order in orders if order]
    assert len(set(first)) == min(count, len(slides)) or len(slides) < count


# Running.


@pytest.fixture(scope="module")
def alone(folder: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `segment` writes of each slide."""
    place = tmp_path_factory.mktemp("alone")
    for name in ("s0", "s1", "s2"):
        segment_slide(folder / f"{name}.tif", model=model, outputs=[place / f"{name}.geojson"], tile_size=192)
    return {f"{name}.geojson": (place / f"{name}.geojson").read_bytes() for name in ("s0", "s1", "s2")}


def results(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.glob("*.geojson")}


def test_a_cohort_ends_as_its_slides_alone_do(
    folder: Path, model: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    plan = planned(folder, tmp_path, model)
    said: list[str] = []
    tally = run_cohort(plan, Means(), index=1, count=2, say=said.append)
    assert len(tally.done) == 3
    assert results(tmp_path) == alone
    assert states(plan) == ["failed", "done", "done", "done"]
    assert sorted(p.name for p in plan.state.iterdir()) == ["000001.json", "000002.json", "000003.json"]
    assert len(said) == 6
    again = run_cohort(plan, Means())
    assert (again.done, again.failed, again.elsewhere) == ([], [], [])


def test_what_fails_is_written_down_and_can_be_done_again(
    folder: Path, model: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    for name in ("s0", "s1"):
        shutil.copy(folder / f"{name}.tif", tmp_path)
    plan = planned(f"{tmp_path}/*.tif", tmp_path / "r", model)
    whole = (tmp_path / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").write_bytes(whole[:5000])
    tally = run_cohort(plan, Means())
    assert (tally.done, tally.failed) == ([0], [1])
    assert "s1.tif" in status(plan).rows[1].reason
    assert run_cohort(plan, Means()).failed == []
    with pytest.raises(DataError, match="has not failed"):
        retry(plan, ["s0.tif"])
    with pytest.raises(DataError, match="not in the plan"):
        retry(plan, ["s9.tif"])
    (tmp_path / "s1.tif").write_bytes(whole)
    assert [slide.number for slide in retry(plan, ["s1.tif"])] == [1]
    assert run_cohort(plan, Means()).done == [1]
    assert results(tmp_path / "r") == {name: alone[name] for name in ("s0.geojson", "s1.geojson")}


def test_a_file_in_the_way_is_not_replaced(folder: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    (tmp_path / "s0.geojson").write_text("mine")
    assert run_cohort(plan, Means()).failed == [0]
    assert "exists" in status(plan).rows[0].reason
    assert (tmp_path / "s0.geojson").read_text() == "mine"


def test_a_slide_in_living_hands_is_left_to_them(folder: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(f"{folder}/s[01].tif", tmp_path, model)
    theirs = acquire(lease_path(plan, plan.slides[0]), job="77_1")
    theirs.say(tiles=1, of=4, nuclei=9, rate=2.0)
    os.utime(theirs.path, (time.time() - 1, time.time() - 1))
    row = status(plan).rows[0]
    assert (row.state, row.nuclei, row.rate) == ("running", 9, 2.0)
    assert "77_1" in row.who
    assert status(plan).seconds_left > 0
    # It is silent when first looked at, and speaks before patience ends.
    tally = run_cohort(plan, Means(patience=30))
    assert (tally.done, tally.elsewhere) == ([1], [0])
    theirs.leave()


def test_a_slide_that_kills_its_processes_is_given_up(folder: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    path = lease_path(plan, plan.slides[0])
    path.write_text(json.dumps({"token": "x", "deaths": 2, "done_at_start": 0}))
    os.utime(path, (0, 0))
    assert run_cohort(plan, Means(patience=2)).failed == [0]
    assert "3 times" in status(plan).rows[0].reason


@pytest.mark.parametrize("moment", ["noted", "published"])
def test_an_owner_that_died_at_the_very_end_is_made_up_for(
    folder: Path, model: Path, tmp_path: Path, alone: dict[str, bytes], moment: str
) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    (slide,) = plan.slides
    run_cohort(plan, Means())
    ended, place = outcome_path(plan.state, 0), place_of(plan, slide)
    (place / "gone").mkdir(parents=True)
    ended.rename(place / "outcome.json")
    if moment == "noted":
        (tmp_path / "s0.geojson").rename(place / "gone" / "s0.geojson")
    assert run_cohort(plan, Means()).done == [0]
    assert results(tmp_path) == {"s0.geojson": alone["s0.geojson"]}
    assert not place.exists()


def cohort_process(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wsiseg", "cohort", "run", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: object, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def long(model: Path, tmp_path: Path) -> Plan:
    """A slide of some dozens of tiles."""
    write_slide(tmp_path / "long.tif", discs((1400, 1400))[0])
    return planned(f"{tmp_path}/long.tif", tmp_path / "r", model)


def finished_tasks(plan: Plan) -> int:
    return len([*place_of(plan, plan.slides[0]).glob(".*.wsiseg/[0-9]*.npz")])


def test_a_killed_process_is_made_up_for_by_another(long: Plan, tmp_path: Path, model: Path) -> None:
    victim = cohort_process(long.folder, "--patience", 2)
    wait_for(lambda: finished_tasks(long) >= 2)
    victim.kill()
    victim.communicate()
    kept = finished_tasks(long)
    assert lease_path(long, long.slides[0]).exists()
    heir = cohort_process(long.folder, "--patience", 2)
    told = heir.communicate(timeout=300)[1]
    assert heir.returncode == 0, told
    assert "is gone" in told
    assert kept >= 2
    segment_slide(tmp_path / "long.tif", model=model, outputs=[tmp_path / "alone.geojson"], tile_size=192)
    assert results(long.folder) == {"long.geojson": (tmp_path / "alone.geojson").read_bytes()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_in_order_and_the_one_before_the_time_limit_queues_it_again(
    long: Plan, tmp_path: Path, number: signal.Signals
) -> None:
    called = tmp_path / "called"
    fake = tmp_path / "bin" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" > "{called}"\n')
    fake.chmod(0o755)
    process = cohort_process(
        long.folder,
        "--array",
        PATH=f"{fake.parent}:{os.environ['PATH']}",
        SLURM_ARRAY_JOB_ID="5",
        SLURM_ARRAY_TASK_ID="3",
        SLURM_ARRAY_TASK_COUNT="1",
    )
    wait_for(lambda: finished_tasks(long) >= 1)
    process.send_signal(number)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + number, told
    assert "what is finished is kept" in told
    assert finished_tasks(long) >= 1
    assert not lease_path(long, long.slides[0]).exists()
    assert called.exists() == (number == signal.SIGUSR1)
    if number == signal.SIGUSR1:
        assert called.read_text() == "requeue 5_3\n"


def test_a_store_in_anothers_hands_is_begun_anew(
    folder: Path, model: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    """An owner that was thought dead still holds the lock of the store: its heir does not wait for it."""
    from wsiseg.store import locked, store_path

    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    (slide,) = plan.slides
    place_of(plan, slide).mkdir()
    with locked(store_path(Path(slide.output), place_of(plan, slide))):
        assert take(plan, slide, Means(), Listener(), print).state == "done"
    assert results(tmp_path) == {"s0.geojson": alone["s0.geojson"]}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--executor", "dask"), "choose one of"),
        (("--device", "cuda:9"), "CUDA devices"),
        (("--certs", "x"), "it takes none"),
        (("--array", "--shard", "0/2"), "give one"),
    ],
)
def test_what_no_slide_can_be_segmented_with_fails_none(
    folder: Path, model: Path, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    refused = command("run", tmp_path, *options)
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert states(plan) == ["todo"]


def test_a_full_disk_stops_the_process_and_fails_no_slide(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(StoreError, match="No space left"):
        run_cohort(plan, Means())
    assert states(plan) == ["todo"]
    assert not lease_path(plan, plan.slides[0]).exists()


def test_slide_after_slide_failing_is_this_machines_fault(folder: Path, model: Path, tmp_path: Path) -> None:
    for number in range(7):
        shutil.copy(folder / "s0.tif", tmp_path / f"c{number}.tif")
    plan = planned(f"{tmp_path}/c*.tif", tmp_path / "r", model)
    for number in range(7):
        (tmp_path / f"c{number}.tif").unlink()
    with pytest.raises(TaskError, match="first 5 slides all failed"):
        run_cohort(plan, Means())
    assert states(plan).count("todo") == 2


def test_what_an_owner_left_that_vanished_at_the_end_is_swept(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    run_cohort(plan, Means())
    place_of(plan, plan.slides[0]).mkdir()
    path = lease_path(plan, plan.slides[0])
    path.write_text(json.dumps({"token": "x"}))
    os.utime(path, (0, 0))
    run_cohort(plan, Means())
    assert [file.name for file in plan.state.iterdir()] == ["000000.json"]


def test_what_a_slow_owner_writes_after_another_has_ended_the_slide_goes_too(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    slide, won = plan.slides[0], []

    def slow(*given: Any, **options: Any) -> object:
        monkeypatch.undo()
        os.utime(lease_path(plan, slide), (0, 0))
        won.append(take(plan, slide, Means(), Listener(), lambda _: None))
        (place_of(plan, slide) / "late").mkdir(parents=True)
        return segment_slide(*given, **options)

    monkeypatch.setattr("wsiseg.cohort.slide.segment_slide", slow)
    assert take(plan, slide, Means(), Listener(), lambda _: None) is None
    assert won[0].state == "done"
    assert [file.name for file in plan.state.iterdir()] == ["000000.json"]


# Tables and the command line.


def test_tables_hold_every_slide_and_every_nucleus(folder: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        f"slide,output\n{folder}/s0.tif,a.geojson.gz\n{folder}/s1.tif,b.zarr\n{folder}/s2.tif,c.zip\n{folder}/x,\n"
    )
    plan = planned(tmp_path / "m.csv", tmp_path / "r", model, measure=("shape", "stain"), cells_um=2.0)
    with pytest.raises(DataError, match="no slide is done"):
        write_nuclei(plan, tmp_path / "n.parquet")
    run_cohort(plan, Means())
    assert write_slides(plan, tmp_path / "s.parquet") == 4
    slides = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["state"] for row in slides] == ["done"] * 3 + ["failed"]
    count = write_nuclei(plan, tmp_path / "n.parquet")
    nuclei = pq.read_table(tmp_path / "n.parquet")
    assert nuclei.num_rows == count == sum(row["nuclei"] for row in slides[:3])
    for slide, seed, side in ((0, 0, 260), (1, 1, 500)):
        centres = discs((side, 300), seed=seed)[1]
        mine = [row for row in nuclei.to_pylist() if row["slide"] == plan.slides[slide].slide]
        assert len(mine) == len(centres)
        for y, x in centres[:5]:
            assert min((r["y"] - y) ** 2 + (r["x"] - x) ** 2 for r in mine) < 2
        assert mine[0]["x_um"] == pytest.approx(0.25 * mine[0]["x"])
        assert mine[0]["Cell: Area µm^2"] > mine[0]["Nucleus: Area µm^2"] > 0
        assert mine[0]["Nucleus: Hematoxylin: Mean"] > 0
    other = replace(plan, slides=(replace(plan.slides[0], output="b.ome.zarr"), *plan.slides[1:]))
    (tmp_path / "r" / "b.ome.zarr").mkdir()
    with pytest.raises(DataError, match=r"b\.ome\.zarr: nuclei are merged from \.zarr"):
        list(nuclei_of(other, other.slides[0]))
    shutil.rmtree(tmp_path / "r" / "b.zarr")
    with pytest.raises(DataError, match="is missing"):
        write_nuclei(plan, tmp_path / "n.parquet")


def test_the_commands_from_a_folder_to_a_table(folder: Path, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "r"
    made = command("plan", folder, "-o", place, "--model", model, "--tile-size", 192)
    assert made.exit_code == 0, made.stderr
    assert "broken.svs" in made.stderr
    assert "3 slides" in made.stderr
    assert command("plan", folder, "-o", place).exit_code == 2
    assert "0 done, 1 failed, 0 running, 3 todo" in command("status", place).stdout
    ran = command("run", place, "--shard", "0/2")
    assert ran.exit_code == 0, ran.stderr
    assert "3 slides done" in ran.stderr
    found = json.loads(command("status", place, "--json").stdout)
    assert found["counts"] == {"done": 3, "failed": 1, "running": 0, "todo": 0}
    assert found["nuclei"] == sum(slide["nuclei"] for slide in found["slides"])
    assert command("retry", place).stderr.startswith("0 slides")
    merged = command("merge", place, "-o", tmp_path / "s.parquet", "--nuclei", tmp_path / "n.parquet")
    assert merged.exit_code == 0, merged.stderr
    assert "exists" in command("merge", place, "-o", tmp_path / "s.parquet").stderr
    assert ".parquet" in command("merge", place, "-o", tmp_path / "s.csv").stderr
    one = tmp_path / "one.parquet"
    assert "two names" in command("merge", place, "-o", one, "--nuclei", one).stderr
    (place / "s1.geojson").write_text("{")
    damaged = command("merge", place, "-o", one, "--nuclei", tmp_path / "two.parquet")
    assert damaged.exit_code == 2
    assert "s1.geojson: damaged" in damaged.stderr


@pytest.mark.parametrize("shard", ["1", "2/2", "a/b", "-1/2"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, shard: str) -> None:
    refused = command("run", tmp_path, f"--shard={shard}")
    assert refused.exit_code == 2
    assert "i/n" in refused.stderr


def test_outside_of_an_array_there_is_no_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    assert "--shard" in command("run", tmp_path, "--array").stderr


def test_the_job_script_asks_for_what_was_said(folder: Path, model: Path, tmp_path: Path) -> None:
    planned(folder, tmp_path, model)
    shown = command("submit", tmp_path, "--array", "0-9%2", "--gpus", 1, "--partition", "gpu", "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    for line in (
        "#SBATCH --array=0-9%2",
        "#SBATCH --gpus=1",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=B:USR1@120",
    ):
        assert line in lines
    (last,) = [line for line in lines if line.startswith("exec ")]
    assert last.endswith(f"cohort run {tmp_path} --array --device cuda")
    assert subprocess.run(["bash", "-n"], input=shown.stdout, text=True, check=False).returncode == 0
    foreign = command("submit", tmp_path, "--command", "apptainer run x.sif", "--dry-run").stdout
    assert f"apptainer run x.sif cohort run {tmp_path} --array --no-requeue &" in foreign
    assert subprocess.run(["bash", "-n"], input=foreign, text=True, check=False).returncode == 0
    for bad in ("0-9;rm", "x", "%3"):
        assert command("submit", tmp_path, f"--array={bad}", "--dry-run").exit_code == 2
    assert command("submit", tmp_path, "--sbatch", 'a"b', "--dry-run").exit_code == 2


def test_a_damaged_outcome_is_named(folder: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(f"{folder}/s0.tif", tmp_path, model)
    outcome_path(plan.state, 0).write_text("{")
    told = command("status", tmp_path)
    assert told.exit_code == 2
    assert "000000.json" in told.stderr
    assert read_outcome(plan.state / "000009.json") is None


def test_two_that_race_make_one_result_and_size_costs_little() -> None:
    """The short version of benchmarks/cohort.py."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "cohort.py"), "--slides", "30", "--races", "6", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["one_whole_result"] == found["outcomes"] == found["races"] == 6
    assert found["ended_by_first"] + found["ended_by_second"] == 6
    assert found["left_behind"] == 0
    assert found["inodes_a_slide"] < 50


@pytest.mark.parametrize(("end", "agreed"), [("exit 0", True), ("kill -TERM $$", True), ("exit 1", False)])
def test_a_task_is_queued_again_even_where_that_ends_scontrol_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, agreed: bool
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\n{end}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert requeue("8_0") == agreed
