"""Where tasks run. Each module here is one backend; a backend is one method, `map`.

A backend module has `start(*, workers, threads_per_worker, **options)`: a context manager that gives an `Executor`
and, when it is left for whatever reason, ends every thread and process that it began. It also has
`default_workers(cores)`: how many workers it begins where nobody says; `threads(cores, workers, options)`: threads of
one; `check(options)`, which refuses options that it does not know; and `ONE_PROCESS`, whether its workers share one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from wsiseg import granted
from wsiseg.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a function over tasks, a bounded number of them at a time."""

    def map(self, fn: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[int, R]]:
        """(position of the task in `tasks`, its result), in the order in which tasks finish.

        At most twice as many tasks as there are workers are taken from `tasks` and not yet given back.

        Raises
        ------
        WsisegError
            What a task raised, if it is one of ours.
        TaskError
            If a task raised anything else, or if its worker was lost again and again; names the task.
        """
        ...


def none_of(options: Mapping[str, object], backend: str) -> None:
    """Refuse options, for a backend that takes none.

    Raises
    ------
    ConfigError
        Naming one.
    """
    for name in options:
        raise ConfigError(f"executor {backend}: option {name!r} is unknown; it takes none")


def cores() -> int:
    """Processors that this process may use: those it is bound to, that its job was granted, that OMP_NUM_THREADS says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limits = [granted.processors(), int(wanted) if wanted.isdecimal() and int(wanted) else None]
    return min([allowed, *(limit for limit in limits if limit)])
