"""Tasks through a Dask client, whatever cluster stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from distributed import Client, KilledWorker
from distributed.cfexecutor import ClientExecutor

from wsiseg.execute import R, T
from wsiseg.execute._window import window
from wsiseg.memory import ENVIRONMENT

RETRIES = 3
"""How often a task is given to another worker after the one that had it was lost."""


@dataclass(frozen=True, slots=True)
class DaskPool:
    """An `Executor` over `workers` processes."""

    executor: ClientExecutor
    workers: int
    alive: Callable[[], bool]

    def map(self, fn: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`; `fn`, tasks and results are pickled."""
        limit = 2 * self.workers
        submit: Callable[[Callable[[T], R], T], Future[R]] = self.executor.submit
        return window(lambda task: submit(fn, task), tasks, limit=limit, lost=KilledWorker, alive=self.alive)


def pool_of(client: Client, workers: int, *, resource: str = "") -> DaskPool:
    """The pool behind a client; with `resource`, on workers that have one of it, one task each."""
    wanted = {"resources": {resource: 1}} if resource else {}
    return DaskPool(
        client.get_executor(pure=False, **wanted),
        workers,
        lambda: bool(client.scheduler_info(n_workers=-1)["workers"]),
    )


def worker_environment(threads: int) -> dict[str, object]:
    """Environment of a worker: `threads` for numerical libraries, memory kept."""
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        **ENVIRONMENT,
    }
