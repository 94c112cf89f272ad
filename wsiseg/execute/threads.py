"""Tasks in threads of this process: the default.

Reading, the networks and most of numpy let go of the interpreter, so that two threads already let a slide be
read while another tile is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from wsiseg.execute import R, T, none_of
from wsiseg.execute._window import window

ONE_PROCESS = True


@dataclass(frozen=True, slots=True)
class Threads:
    """An `Executor` over a pool of `workers` threads."""

    pool: ThreadPoolExecutor
    workers: int

    def map(self, fn: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        return window(lambda task: self.pool.submit(fn, task), tasks, limit=2 * self.workers)


def default_workers(cores: int) -> int:
    """Workers where nobody says: two, so that one reads while the other predicts."""
    return min(2, cores)


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
    none_of(options, "threads")


@contextmanager
def start(*, workers: int, threads_per_worker: int = 1, **options: object) -> Iterator[Threads]:
    """Begin `workers` threads; `threads_per_worker` is for tasks to heed, since all share one process."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="wsiseg")
    try:
        yield Threads(pool, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
