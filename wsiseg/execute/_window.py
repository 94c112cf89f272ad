"""A bounded number of tasks in flight, whatever it is that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice

from wsiseg.errors import TaskError, WsisegError, brief
from wsiseg.execute import R, T
from wsiseg.signals import held

PATIENCE = 30.0
"""Seconds without a result after which a backend is asked whether any worker is alive."""

ABSENT = 5
"""Times in a row that none may be: a lost worker is begun anew, which takes a minute on a busy machine."""

PROMPT = 0.2
"""Seconds that Ctrl-C waits at most for being answered."""


def window(
    submit: Callable[[T], Future[R]],
    tasks: Iterable[T],
    *,
    limit: int,
    lost: type[Exception] | None = None,
    alive: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, R]]:
    """(position, result) of every task as it finishes, with at most `limit` submitted at a time.

    Another task is submitted only after a result was taken, and nothing here holds a result that was taken.
    When the caller stops early, whatever has not begun is cancelled. `lost` is what a backend raises for a
    task whose worker was lost more often than it retries. `alive` tells whether any worker is there; it is asked
    when nothing has finished for `PATIENCE` seconds.

    Raises
    ------
    TaskError
        If no worker was alive `ABSENT` times in a row: nothing would ever finish.
    """
    numbered, room = enumerate(tasks), limit
    pending: dict[Future[R], int] = {}
    # Taken from the end: what was finished is given before what failed ends it all.
    done: list[Future[R]] = []
    patience = _Patience(alive)
    try:
        while True:
            with held() as signals:
                pending.update((submit(task), i) for i, task in islice(numbered, room))
                room = 0
                while pending and not done and not signals:
                    began = time.monotonic()
                    finished = wait(pending, PROMPT, return_when=FIRST_COMPLETED).done
                    done = sorted(finished, key=lambda future: future.exception() is None)
                    finished.clear()
                    if not done:
                        patience.waited(time.monotonic() - began)
            if done:
                patience = _Patience(alive)
                yield take(done.pop(), pending, lost)
                room = 1
            elif not pending:
                return
    finally:
        with held():
            for future in pending:
                future.cancel()


class _Patience:
    """How long nothing has finished, and whether any worker is left that could finish something."""

    def __init__(self, alive: Callable[[], bool] | None) -> None:
        """`alive` tells whether any worker is there; without it one always is."""
        self._alive, self._silent, self._absent = alive, 0.0, 0

    def waited(self, seconds: float) -> None:
        """So long nothing has finished, once more.

        Raises
        ------
        TaskError
            If no worker was alive `ABSENT` times in a row, `PATIENCE` seconds apart.
        """
        self._silent += seconds
        if self._alive is None or self._silent <= PATIENCE:
            return
        self._silent, self._absent = 0.0, 0 if self._alive() else self._absent + 1
        if self._absent == ABSENT:
            raise TaskError(
                "all workers have gone and none came back; start again, or use --executor threads"
            )


def take(future: Future[R], pending: dict[Future[R], int], lost: type[Exception] | None) -> tuple[int, R]:
    """(position, result) of a finished future, which nothing holds any longer afterwards.

    Raises
    ------
    WsisegError
        The task's own, as it is.
    TaskError
        For anything else, with its kind and its first line.
    """
    index = pending.pop(future)
    try:
        return index, future.result()
    except WsisegError:
        raise
    except Exception as error:
        if lost is not None and isinstance(error, lost):
            raise TaskError(
                f"task {index}: its worker died each time it was tried, most likely out of memory; "
                "use fewer --workers or a smaller --tile-size"
            ) from error
        raise TaskError(f"task {index} failed with {brief(error)}") from error
