"""Backends of `execute`: what every one of them owes, and what only processes can go through."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dask
import pytest

from wsiseg import execute, granted, plugins
from wsiseg.errors import ConfigError, SlideError, TaskError
from wsiseg.execute import Executor, threads
from wsiseg.execute._options import read_options
from wsiseg.execute._tls import make_certificates, security


def square(x: int) -> int:
    return x * x


def fail_at_three(x: int) -> int:
    if x == 3:
        raise ValueError("first line\nsecond line")
    return x


def refuse(_: int) -> int:
    raise SlideError("a.svs: cannot be read")


def die_once(marker: Path) -> int:
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return 7


def die(_: int) -> int:
    os._exit(1)


def threads_allowed(_: int) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certs"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def scheduler(certs: Path) -> Iterator[str]:
    """Address of a scheduler with two workers that speaks TLS, as a user may run one."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        protocol="tls://",
        security=security(str(certs)),
        resources={"GPU": 1},
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["threads", "dask_local", "dask_address"], scope="module")
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Every backend that needs no cluster; `dask_slurm` has its test in test_cohort_slurm.py."""
    options = {}
    if request.param == "dask_address":
        address, folder = request.getfixturevalue("scheduler"), request.getfixturevalue("certs")
        options = {"address": address, "certs": str(folder), "resource": "GPU"}
    with plugins.load(execute, request.param).start(workers=2, threads_per_worker=1, **options) as made:
        yield made


def test_backends_are_plugins() -> None:
    assert plugins.names(execute) == ("dask_address", "dask_local", "dask_slurm", "threads")


def test_a_scheduler_speaks_to_nobody_without_its_certificate(scheduler: str, tmp_path: Path) -> None:
    make_certificates(tmp_path / "others")
    backend = plugins.load(execute, "dask_address")
    with pytest.raises(ConfigError, match="no scheduler answers"):
        backend.start(workers=1, address=scheduler, certs=str(tmp_path / "others")).__enter__()
    with pytest.raises(ConfigError, match="no scheduler answers"):
        backend.start(workers=1, address=scheduler.replace("tls", "tcp")).__enter__()


def test_certificates_are_their_owners_alone_and_are_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    make_certificates(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    with pytest.raises(ConfigError, match="already"):
        make_certificates(folder)
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        security(str(folder))
    with pytest.raises(ConfigError, match="wsiseg cohort certs"):
        security(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("backend", "options", "told"),
    [
        ("threads", {"address": "x"}, "it takes none"),
        ("dask_local", {"cores": 2}, "it takes none"),
        ("dask_address", {}, "address"),
        ("dask_address", {"address": "node:1"}, "tls://host:port"),
        ("dask_address", {"address": "tls://node:1"}, "--certs"),
        ("dask_address", {"address": "tcp://127.0.0.1:1", "gpus": 1}, "'gpus' is unknown; it takes address"),
        ("dask_slurm", {"cores": "four"}, "not of the type int"),
        ("dask_slurm", {"prologue": "module load cuda"}, r"not of the type list\[str\]"),
        ("dask_slurm", {"prologue": [1]}, r"not of the type list\[str\]"),
        ("dask_slurm", {"certs": "/no/such/folder"}, "wsiseg cohort certs"),
    ],
)
def test_options_that_mean_nothing_are_refused(backend: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plugins.load(execute, backend).check(options)


def test_an_open_scheduler_on_the_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    backend = plugins.load(execute, "dask_address")
    backend.check({"address": "tcp://localhost:8786"})
    # A scheduler of the test before may still be saying that it ends.
    assert not [record for record in caplog.records if record.name.startswith("wsiseg")]
    backend.check({"address": "tcp://node7:8786"})
    assert "anyone on the network" in caplog.text


def test_the_example_of_a_cluster_is_good(certs: Path) -> None:
    options = read_options(Path(__file__).parents[1] / "configs" / "slurm.toml")
    plugins.load(execute, "dask_slurm").check({**options, "certs": str(certs)})
    with pytest.raises(ConfigError, match="TOML"):
        read_options(Path(__file__))


def test_processors_are_those_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name in granted.CPUS:
        monkeypatch.delenv(name, raising=False)
    assert execute.cores() == 64
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert execute.cores() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert execute.cores() == 2


def test_memory_is_the_least_of_what_is_said(tmp_path: Path) -> None:
    asked = {"SLURM_MEM_PER_NODE": "4096"}
    for file, text in {
        "proc/self/cgroup": "0::/slurm/job/step\n",
        "sys/fs/cgroup/slurm/job/step/memory.max": "max\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert granted.memory(asked, root=tmp_path) == 4 << 30
    assert granted.memory({}, root=tmp_path) is None
    (tmp_path / "sys/fs/cgroup/slurm/memory.max").write_text(f"{3 << 30}\n")
    assert granted.memory(asked, root=tmp_path) == 3 << 30
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,memory:/pbs\n3:pids:/x\n")
    (tmp_path / "sys/fs/cgroup/memory/pbs").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory/pbs/memory.limit_in_bytes").write_text(f"{2 << 30}\n")
    assert granted.memory(asked, root=tmp_path) == 2 << 30


def test_every_result_comes_once_with_the_position_of_its_task(executor: Executor) -> None:
    assert sorted(executor.map(square, range(50))) == [(i, i * i) for i in range(50)]


def test_no_tasks_no_results(executor: Executor) -> None:
    assert list(executor.map(square, [])) == []


def test_a_failing_task_is_named(executor: Executor) -> None:
    with pytest.raises(TaskError, match=r"^task 3 failed with ValueError: first line$"):
        list(executor.map(fail_at_three, range(9)))


def test_an_error_of_ours_comes_as_it_is(executor: Executor) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: cannot be read"):
        list(executor.map(refuse, [0]))


def test_a_failure_leaves_the_executor_usable(executor: Executor) -> None:
    with pytest.raises(TaskError):
        list(executor.map(fail_at_three, range(9)))
    assert list(executor.map(square, [4])) == [(0, 16)]


def test_at_most_two_tasks_a_worker_are_taken_and_not_given_back(executor: Executor) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for i in range(20):
            taken += 1
            yield i

    for given, _ in enumerate(executor.map(square, tasks()), start=1):
        assert taken - given <= 4
    assert taken == 20


def test_results_come_as_they_finish_not_in_order() -> None:
    gate = threading.Event()

    def wait_if_first(x: int) -> int:
        assert x > 0 or gate.wait(10)
        return x

    with threads.start(workers=2) as pool:
        results = pool.map(wait_if_first, range(2))
        assert next(results) == (1, 1)
        gate.set()
        assert list(results) == [(0, 0)]


class Heavy:
    """Something whose release can be watched."""


def test_a_result_that_was_taken_is_let_go() -> None:
    with threads.start(workers=1) as pool:
        results = pool.map(lambda _: Heavy(), range(6))
        seen = [weakref.ref(next(results)[1]) for _ in range(3)]
        time.sleep(0.05)  # the pool's thread still holds its last result for a moment
        gc.collect()
        assert [ref() for ref in seen] == [None, None, None]
        results.close()  # type: ignore[attr-defined]


def test_stopping_early_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    def note(x: int) -> int:
        begun.append(x)
        time.sleep(0.02)
        return x

    with threads.start(workers=1) as pool:
        for _ in pool.map(note, range(100)):
            break
    assert len(begun) <= 4


def test_a_lost_worker_is_replaced_and_its_task_repeated(tmp_path: Path) -> None:
    dask_local = plugins.load(execute, "dask_local")
    with dask_local.start(workers=1, threads_per_worker=1) as one:
        assert list(one.map(die_once, [tmp_path / "died"])) == [(0, 7)]
        with pytest.raises(TaskError, match=r"task 0: its worker died each time.*--workers"):
            list(one.map(die, [0]))


def test_a_lost_worker_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = tmp_path / "died"
    slowly = f"import os, time; time.sleep(3 * os.path.exists({str(died)!r}))"
    backend = plugins.load(execute, "dask_local")
    monkeypatch.setattr(backend, "IGNORE_INTERRUPT", slowly)
    # What Dask would wait for the next worker, had it not been told otherwise.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 s"}),
        backend.start(workers=1, threads_per_worker=1) as one,
    ):
        assert list(one.map(die_once, [died])) == [(0, 7)]


def test_processes_leave_the_environment_and_the_folders_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with plugins.load(execute, "dask_local").start(workers=1, threads_per_worker=2) as one:
        assert list(one.map(threads_allowed, [0])) == [(0, "2")]
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def take(_: object, x: int) -> int:
    return x


class Unreadable:
    """What this process can unpickle and a worker cannot: dask ends a worker for that, and begins no other."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        here = f"__import__('sys').modules[{__name__!r}].Unreadable()"
        return eval, (
            f"{here} if __import__('os').getpid() == {os.getpid()} else __import__('no_such_module')",
        )


def test_a_run_without_any_worker_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.execute._window.PATIENCE", 2.0)
    backend = plugins.load(execute, "dask_local")
    with backend.start(workers=1) as pool, pytest.raises(TaskError, match="all workers have gone"):
        list(pool.map(partial(take, Unreadable()), [1, 2]))
