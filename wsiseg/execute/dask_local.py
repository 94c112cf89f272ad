"""Tasks through a Dask graph, in processes of this machine.

Every worker is one spawned process with one task at a time. Nothing listens beyond 127.0.0.1, there is no
dashboard, and no file outlives the cluster. A script that uses this backend needs the usual
`if __name__ == "__main__":`, because spawned processes import it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import dask
from distributed import Client, KilledWorker, LocalCluster
from distributed.cfexecutor import ClientExecutor

from wsiseg.execute import R, T
from wsiseg.execute._window import window
from wsiseg.memory import ENVIRONMENT

RETRIES = 3
"""How often a task is given to another worker after the one that had it was lost."""

IGNORE_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Ctrl-C reaches every process of a terminal; the driver answers it and ends the others."""


@dataclass(frozen=True, slots=True)
class DaskLocal:
    """An `Executor` over `workers` processes."""

    executor: ClientExecutor
    workers: int
    alive: Callable[[], bool]

    def map(self, fn: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`; `fn`, tasks and results are pickled."""
        limit = 2 * self.workers
        submit: Callable[[Callable[[T], R], T], Future[R]] = self.executor.submit
        return window(lambda task: submit(fn, task), tasks, limit=limit, lost=KilledWorker, alive=self.alive)


def default_workers(cores: int) -> int:
    """Workers where nobody says: one for every four processors, for each holds a model of its own."""
    return max(1, cores // 4)


@contextmanager
def start(*, workers: int, threads_per_worker: int = 1) -> Iterator[DaskLocal]:
    """Begin `workers` processes, each with `threads_per_worker` threads for numerical libraries."""
    with (
        tempfile.TemporaryDirectory(prefix="wsiseg-dask-") as folder,
        environment_restored(),
        dask.config.set(settings(threads_per_worker, folder)),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield DaskLocal(
            client.get_executor(pure=False),
            workers,
            lambda: bool(client.scheduler_info(n_workers=-1)["workers"]),
        )


def settings(threads: int, folder: str) -> dict[str, object]:
    """Dask's settings: quiet, files in `folder`, `threads` for numerical libraries, memory kept."""
    return {
        "temporary-directory": folder,
        "distributed.logging": {"distributed": "critical"},
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.preload": [IGNORE_INTERRUPT],
        "distributed.nanny.pre-spawn-environ": {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            **ENVIRONMENT,
        },
    }


@contextmanager
def environment_restored() -> Iterator[None]:
    """Undo what is done to `os.environ` inside: Dask sets there what it wants its processes to inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
