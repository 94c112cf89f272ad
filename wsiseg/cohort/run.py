"""One process working off a cohort: slide after slide, each under a lease, until none is left to take."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.cohort import lease as leases
from wsiseg.cohort.lease import BEATS, Sight, Watch
from wsiseg.cohort.outcome import Outcome, outcome_path, read_outcome, write_outcome
from wsiseg.cohort.plan import Plan, Planned, in_order
from wsiseg.cohort.slide import Lost, Means, ended, lease_path, place_of
from wsiseg.cohort.stop import Stop
from wsiseg.errors import StoreError, TaskError
from wsiseg.store import WorkingStore, store_path

log = logging.getLogger(__name__)

SUSPICIOUS = 5
"""Slides that may fail in a process before one is done; then it is the process that is not trusted."""


@dataclass(slots=True)
class Tally:
    """What one process did: numbers of slides."""

    done: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)


Say = Callable[[str], None]


def run_cohort(
    plan: Plan, means: Means, *, index: int = 0, count: int = 1, stop: Stop | None = None, say: Say = log.info
) -> Tally:
    """Work off a cohort as process `index` of `count`: first its share, then whatever nobody works on.

    Returns when every slide has ended or is in the hands of a process that has shown itself alive. A slide that
    fails is written down with its reason and stops no other.

    Raises
    ------
    Stopped
        If a signal asked for it; what is finished is kept, and the lease is given back.
    InputError
        If it is this process that cannot work: its device, its executor, the model, the disk.
    TaskError
        If slide after slide fails here: more likely this machine's fault than theirs.
    """
    stop, tally, watch = stop or Stop(), Tally(), Watch(means.patience)
    left = [slide for slide in in_order(plan.good, index, count) if not _ended(plan, slide)]
    first: dict[int, Sight | None] = {}
    while left:
        for slide in left:
            taken = take(plan, slide, means, stop, say, watch)
            if taken is not None:
                (tally.done if taken.state == "done" else tally.failed).append(slide.number)
            if len(tally.failed) == SUSPICIOUS and not tally.done:
                raise TaskError(
                    f"the first {SUSPICIOUS} slides all failed here, the last with: {taken.reason if taken else ''}; "
                    "if this machine is at fault, run wsiseg cohort retry and start elsewhere"
                )
        left = [slide for slide in left if not _ended(plan, slide)]
        left = [slide for slide in left if not _shows_life(plan, slide, first)]
        if left:
            with stop.breakable():
                time.sleep(1.5 * means.patience / BEATS)
    _sweep(plan, means.patience)
    tally.elsewhere = [slide.number for slide in plan.good if not _ended(plan, slide)]
    return tally


def _ended(plan: Plan, slide: Planned) -> bool:
    return outcome_path(plan.state, slide.number).exists()


def _shows_life(plan: Plan, slide: Planned, first: dict[int, Sight | None]) -> bool:
    """Whether the owner of a slide gave a sign of life between two looks."""
    seen = leases.look(lease_path(plan, slide))
    before = first.setdefault(slide.number, seen)
    return seen is not None and before is not None and seen.touched > before.touched


def _sweep(plan: Plan, patience: float) -> None:
    """Remove what an owner left that vanished after its slide had ended."""
    for slide in plan.good:
        seen = leases.look(lease_path(plan, slide))
        if seen is not None and _ended(plan, slide) and seen.void(plan.state, patience):
            lease_path(plan, slide).unlink(missing_ok=True)
            _tidy(plan, slide)


def _tidy(plan: Plan, slide: Planned) -> None:
    """Remove the working folder of a slide that is done; one that failed keeps its tiles, to go on from."""
    outcome = read_outcome(outcome_path(plan.state, slide.number))
    if outcome is not None and outcome.state == "done":
        shutil.rmtree(place_of(plan, slide), ignore_errors=True)


def take(
    plan: Plan, slide: Planned, means: Means, stop: Stop, say: Say, watch: Watch | None = None
) -> Outcome | None:
    """Work on a slide until it ends; None where it has ended, or is or becomes another's.

    Raises
    ------
    StoreError
        If the folder of results cannot be written.
    """
    if _ended(plan, slide):
        return None
    try:
        return _take(plan, slide, means, stop, say, watch)
    except OSError as error:
        raise StoreError(f"{plan.folder}: cannot be written ({error.strerror or error})") from error


def _take(
    plan: Plan, slide: Planned, means: Means, stop: Stop, say: Say, watch: Watch | None
) -> Outcome | None:
    place = place_of(plan, slide)
    done = len(WorkingStore(store_path(Path(slide.output), place)).done())
    mine = leases.acquire(
        lease_path(plan, slide), done=done, job=means.job, patience=means.patience, watch=watch
    )
    if mine is None:
        return None
    try:
        # Between the first look and the lease another may have ended it.
        if _ended(plan, slide):
            return None
        place.mkdir(exist_ok=True)
        say(f"{slide.slide}: begun ({slide.tiles:,} tiles)")
        outcome = ended(plan, slide, mine, means, stop)
        if not mine.held() or not write_outcome(outcome_path(plan.state, slide.number), outcome):
            raise Lost
        _tidy(plan, slide)
    except Lost:
        say(f"{slide.slide}: another process has taken it over; left to it")
        _tidy(plan, slide)  # where that one has ended it, what this one wrote after that would stay
        return None
    finally:
        mine.leave()
    told = (
        f"{outcome.nuclei:,} nuclei, {outcome.seconds:.0f} s" if outcome.state == "done" else outcome.reason
    )
    say(f"{slide.slide}: {outcome.state}: {told}")
    return outcome
