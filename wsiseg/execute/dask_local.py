"""Tasks through a Dask graph, in processes of this machine.

Every worker is one spawned process with one task at a time. Nothing listens beyond 127.0.0.1, there is no
dashboard, and no file outlives the cluster. A script that uses this backend needs the usual
`if __name__ == "__main__":`, because spawned processes import it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from wsiseg.execute import none_of
from wsiseg.execute._dask import RETRIES, DaskPool, pool_of, worker_environment

ONE_PROCESS = False

IGNORE_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Ctrl-C reaches every process of a terminal; the driver answers it and ends the others."""


LOST_FOR = "1 day"
"""After so long Dask gives a lost worker up, however slowly its successor begins; after 15 seconds, if nothing is said."""


def default_workers(cores: int) -> int:
    """Workers where nobody says: one for every four processors, for each holds a model of its own."""
    return max(1, cores // 4)


def threads(cores: int, workers: int, options: Mapping[str, object]) -> int:
    """Threads of a worker: its share of the processors."""
    return max(1, cores // workers)


def check(options: Mapping[str, object]) -> None:
    """Refuse options: there are none.

    Raises
    ------
    ConfigError
        Naming one.
    """
    none_of(options, "dask_local")


@contextmanager
def start(*, workers: int, threads_per_worker: int = 1, **options: object) -> Iterator[DaskPool]:
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
        yield pool_of(client, workers)


def settings(threads: int, folder: str) -> dict[str, object]:
    """Dask's settings: quiet, files in `folder`, `threads` for numerical libraries, memory kept."""
    return {
        "temporary-directory": folder,
        "distributed.logging": {"distributed": "critical"},
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.deploy.lost-worker-timeout": LOST_FOR,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.preload": [IGNORE_INTERRUPT],
        "distributed.nanny.pre-spawn-environ": worker_environment(threads),
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
