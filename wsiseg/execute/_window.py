"""A bounded number of tasks in flight, whatever it is that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice

from wsiseg.errors import TaskError, WsisegError, brief
from wsiseg.execute import R, T

PATIENCE = 30.0
"""Seconds without a result after which a backend is asked whether any worker is alive."""


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
        If no worker was alive twice in a row: nothing would ever finish.
    """
    numbered = enumerate(tasks)
    pending = {submit(task): i for i, task in islice(numbered, limit)}
    absent = 0
    try:
        while pending:
            finished = wait(pending, PATIENCE if alive else None, return_when=FIRST_COMPLETED).done
            if not finished and alive is not None:
                absent = 0 if alive() else absent + 1
                if absent == 2:
                    raise TaskError(
                        "all workers have gone and none came back; start again, or use --executor threads"
                    )
                continue
            # Taken from the end: what was finished is given before what failed ends it all.
            done = sorted(finished, key=lambda future: future.exception() is None)
            finished.clear()
            while done:
                yield take(done.pop(), pending, lost)
                pending.update((submit(task), i) for i, task in islice(numbered, 1))
    finally:
        for future in pending:
            future.cancel()


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
