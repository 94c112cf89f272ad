"""A cohort on a real Slurm, which is started for these tests: scripts/slurm-dev says what it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slides_made import discs, tiny_model, write_slide

from wsiseg.cohort.plan import read_plan
from wsiseg.cohort.status import status
from wsiseg.execute._tls import make_certificates
from wsiseg.pipeline import segment_slide

pytestmark = pytest.mark.slurm

SLURM_DEV = Path(__file__).parents[1] / "scripts" / "slurm-dev"
MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch finds the Slurm that is up for this module."""
    if os.getuid() != 0 or MISSING:
        reason = (
            f"needs root and Slurm (missing: {', '.join(MISSING) or 'root'}); apt-get install slurm-wlm munge"
        )
        if os.environ.get("CI") == "true" and os.getuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    # Short: the path of munge's socket may have no more than 107 letters.
    folder = Path("/tmp") / f"wsiseg-slurm-{os.getpid()}"
    environment = {**os.environ, "WSISEG_SLURM": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {
        "WSISEG_SLURM_PORT": str(20000 + os.getpid() % 20000),
        "SLURM_CONF": f"{folder}/slurm.conf",
    }
    subprocess.run([SLURM_DEV, "up"], env=environment, check=True, timeout=60)
    try:
        yield environment
    finally:
        subprocess.run([SLURM_DEV, "down"], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


Call = Callable[..., str]


@pytest.fixture
def call(slurm: dict[str, str]) -> Call:
    """Run a command that must succeed; what it printed."""

    def run(*command: object) -> str:
        done = subprocess.run(
            [*map(str, command)], env=slurm, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def cohort(call: Call) -> Call:
    return lambda *arguments: call(sys.executable, "-m", "wsiseg", "cohort", *arguments)


def submitted(cohort: Call, results: Path, *options: object) -> str:
    """Number of the job that was submitted."""
    small = ("--cpus", 1, "--mem", "2G", "--time", 20)
    return cohort("submit", results, *small, "--run", "--patience 5", *options).split()[-1]


def wait_for(condition: Callable[[], object], told: Callable[[], str], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


def logs(results: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(results.glob("logs/*")))


def over(call: Call, job: str) -> bool:
    """Whether no task of a job waits or runs."""
    return not call("squeue", "--noheader", "--jobs", job, "--states=PD,R,CF,CG,S").strip()


def counts(results: Path) -> dict[str, int]:
    return status(read_plan(results)).counts


def alone(slide: Path, model: Path, place: Path) -> bytes:
    """What a local run writes."""
    out = place / f"alone-{slide.stem}.geojson"
    segment_slide(slide, model=model, outputs=[out], tile_size=192)
    return out.read_bytes()


@pytest.fixture(scope="module")
def long_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 64 tiles, alone in its folder: long enough to be interrupted."""
    return write_slide(tmp_path_factory.mktemp("long") / "long.tif", discs((1500, 1500))[0])


@pytest.fixture(scope="module")
def long_alone(long_slide: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a local run writes of it."""
    return alone(long_slide, model, tmp_path_factory.mktemp("long-alone"))


def finished_tasks(results: Path) -> int:
    return len([*results.glob(".cohort/*/.*.wsiseg/[0-9]*.npz")])


def test_an_array_of_four_works_off_eight_slides(
    call: Call, cohort: Call, model: Path, tmp_path: Path
) -> None:
    slides, results = tmp_path / "slides", tmp_path / "results"
    slides.mkdir()
    for number in range(8):
        write_slide(slides / f"s{number}.tif", discs((300, 260), seed=number)[0])
    whole = (slides / "s5.tif").read_bytes()
    cohort("plan", slides, "-o", results, "--model", model, "--tile-size", 192)
    (slides / "s5.tif").write_bytes(whole[: len(whole) // 2])
    job = submitted(cohort, results, "--array", "0-3")
    wait_for(lambda: over(call, job), lambda: logs(results))
    assert counts(results) == {"done": 7, "failed": 1, "running": 0, "todo": 0}, logs(results)
    # Any subset of tasks ends a cohort.
    (slides / "s5.tif").write_bytes(whole)
    cohort("retry", results)
    job = submitted(cohort, results, "--array", "5,7")
    wait_for(lambda: over(call, job), lambda: logs(results))
    assert counts(results)["done"] == 8, logs(results)
    assert json.loads(cohort("status", results, "--json"))["counts"]["done"] == 8
    for slide in slides.iterdir():
        assert (results / f"{slide.stem}.geojson").read_bytes() == alone(slide, model, tmp_path)
    cohort("merge", results, "-o", tmp_path / "slides.parquet", "--nuclei", tmp_path / "nuclei.parquet")
    rows = pq.read_table(tmp_path / "slides.parquet").to_pylist()
    assert [row["state"] for row in rows] == ["done"] * 8
    assert pq.read_metadata(tmp_path / "nuclei.parquet").num_rows == sum(row["nuclei"] for row in rows)
    assert all("job" in row["worker"] for row in rows)


def test_a_task_that_was_killed_and_queued_again_goes_on(
    call: Call, cohort: Call, model: Path, tmp_path: Path, long_slide: Path, long_alone: bytes
) -> None:
    results = tmp_path / "results"
    cohort("plan", long_slide.parent, "-o", results, "--model", model, "--tile-size", 192)
    job = submitted(cohort, results, "--array", "0")
    wait_for(lambda: finished_tasks(results) >= 3, lambda: logs(results))
    call("scancel", "--signal=KILL", "--full", f"{job}_0")
    wait_for(lambda: over(call, job), lambda: logs(results))
    assert counts(results)["done"] == 0
    call("scontrol", "requeue", f"{job}_0")
    wait_for(lambda: counts(results)["done"] == 1, lambda: logs(results))
    assert logs(results).count("begun") == 2
    assert (results / "long.geojson").read_bytes() == long_alone


def test_the_signal_before_the_time_limit_queues_the_task_again(
    call: Call, cohort: Call, model: Path, tmp_path: Path, long_slide: Path, long_alone: bytes
) -> None:
    results = tmp_path / "results"
    cohort("plan", long_slide.parent, "-o", results, "--model", model, "--tile-size", 192)
    job = submitted(cohort, results, "--array", "0")
    wait_for(lambda: finished_tasks(results) >= 3, lambda: logs(results))
    call("scancel", "--signal=USR1", "--batch", f"{job}_0")
    wait_for(lambda: "queued again" in logs(results), lambda: logs(results))
    wait_for(lambda: counts(results)["done"] == 1, lambda: logs(results))
    assert "is gone" not in logs(results)
    assert (results / "long.geojson").read_bytes() == long_alone


def kill_the_node(environment: dict[str, str]) -> None:
    """What a power cut does: slurmd, the steps' own processes and the job all end at once."""
    subprocess.run([SLURM_DEV, "lose"], env=environment, check=True)
    told = f"SLURM_CONF={environment['SLURM_CONF']}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = told in (place / "environ").read_bytes().split(b"\0")
            line = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if ours and (b"slurmstepd" in line or b"cohort\0run" in line):
            os.kill(int(place.name), 9)


def node_is_down(call: Call) -> bool:
    return "down" in call("sinfo", "--noheader", "--format=%T")


def test_a_lost_nodes_slide_is_taken_up_again(
    slurm: dict[str, str],
    call: Call,
    cohort: Call,
    model: Path,
    tmp_path: Path,
    long_slide: Path,
    long_alone: bytes,
) -> None:
    results = tmp_path / "results"
    cohort("plan", long_slide.parent, "-o", results, "--model", model, "--tile-size", 192)
    submitted(cohort, results, "--array", "0")
    wait_for(lambda: finished_tasks(results) >= 3, lambda: logs(results))
    kill_the_node(slurm)
    kept = finished_tasks(results)
    wait_for(lambda: node_is_down(call), lambda: call("sinfo"))
    assert counts(results)["done"] == 0
    call(SLURM_DEV, "back")
    wait_for(lambda: counts(results)["done"] == 1, lambda: logs(results))
    assert kept >= 3
    assert "is gone" in logs(results)
    assert (results / "long.geojson").read_bytes() == long_alone


def test_an_owner_that_slurm_has_lost_sight_of_and_another_make_one_result(
    slurm: dict[str, str],
    call: Call,
    cohort: Call,
    model: Path,
    tmp_path: Path,
    long_slide: Path,
    long_alone: bytes,
) -> None:
    """slurmd alone dies: its job computes on, unseen, while Slurm counts the node as down."""
    results = tmp_path / "results"
    cohort("plan", long_slide.parent, "-o", results, "--model", model, "--tile-size", 192)
    job = submitted(cohort, results, "--array", "0")
    wait_for(lambda: finished_tasks(results) >= 2, lambda: logs(results))
    call(SLURM_DEV, "lose")
    # Another process comes while the first lives: it waits for a sign of life, and leaves the slide to it.
    cohort("run", results, "--patience", 30)
    wait_for(lambda: node_is_down(call), lambda: call("sinfo"))
    call(SLURM_DEV, "back")
    wait_for(lambda: counts(results)["done"] == 1, lambda: logs(results))
    wait_for(lambda: over(call, job), lambda: logs(results))
    assert (results / "long.geojson").read_bytes() == long_alone
    assert sorted(path.name for path in (results / ".cohort").iterdir()) == ["000000.json"]


def test_dask_workers_that_are_jobs_find_what_a_local_run_finds(
    call: Call, model: Path, tmp_path: Path
) -> None:
    slide = write_slide(tmp_path / "s.tif", discs((700, 600))[0])
    make_certificates(tmp_path / "certs")
    (tmp_path / "cluster.toml").write_text(
        f'cores = 1\nmemory = "2GB"\nwalltime = "00:10:00"\ninterface = "lo"\ncerts = "{tmp_path}/certs"\n'
        f'logs = "{tmp_path}/logs"\n'
    )
    out = tmp_path / "s.geojson"
    options = ("--executor", "dask_slurm", "--workers", 2, "--cluster", tmp_path / "cluster.toml")
    call(
        sys.executable,
        "-m",
        "wsiseg",
        "segment",
        slide,
        "-o",
        out,
        "--model",
        model,
        "--tile-size",
        192,
        *options,
    )
    assert out.read_bytes() == alone(slide, model, tmp_path)
    assert len([*(tmp_path / "logs").glob("*.err")]) == 2
    wait_for(
        lambda: not call("squeue", "--noheader", "--name=wsiseg-worker", "--states=PD,R"),
        lambda: call("squeue"),
    )
