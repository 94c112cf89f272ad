"""The tasks of a plan, computed by workers: what is finished is kept, and given in the plan's order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from wsiseg.execute import Executor
from wsiseg.nuclei import NucleusTable
from wsiseg.progress import Progress, Watch
from wsiseg.store import WorkingStore
from wsiseg.tiling import Tile, TilePlan

log = logging.getLogger(__name__)

Work = Callable[[tuple[Tile, ...]], NucleusTable]
"""What a worker does with one task: nuclei of a run of tiles, in plan pixels. Pickled for processes."""

Start = Callable[[], AbstractContextManager[Executor]]
"""Begins the workers."""


@contextmanager
def begun_once(start: Start) -> Iterator[Start]:
    """Begins the workers when they are first needed, keeps them, and ends them when it is left."""
    pools: list[Executor] = []
    with ExitStack() as running:

        @contextmanager
        def begin() -> Iterator[Executor]:
            if not pools:
                pools.append(running.enter_context(start()))
            yield pools[0]

        yield begin


def compute(
    plan: TilePlan, work: Work, store: WorkingStore, start: Start, watch: Watch | None = None
) -> Iterator[NucleusTable]:
    """What each task of `plan` found, in their order; what the store does not hold is computed first.

    Each result is committed as it arrives. Workers go on while the caller is busy with what it was given.

    Raises
    ------
    WsisegError
        What a task raised; everything that arrived before stays in the store.
    """
    done, following = set(store.done()), 0
    left = [task for task in range(len(plan.tasks)) if task not in done]
    if left:
        if done:
            log.info("going on from %s: %d of %d tasks are finished", store.path, len(done), len(plan.tasks))
        before = tiles = sum(len(plan.tasks[task]) for task in done)
        found, began = sum(len(table) for table in store.tables()), time.monotonic()
        with start() as pool:
            for position, table in pool.map(work, (plan.tasks[task] for task in left)):
                task = left[position]
                store.commit(task, table)
                done.add(task)
                tiles, found = tiles + len(plan.tasks[task]), found + len(table)
                if watch:
                    rate = (tiles - before) / max(1e-9, time.monotonic() - began)
                    watch(Progress("segmenting", tiles, plan.n_tiles, found, rate))
                while following in done:
                    yield store.read(following)
                    following += 1
    for task in range(following, len(plan.tasks)):
        yield store.read(task)
