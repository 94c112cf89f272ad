"""One process working off a cohort: slide after slide, each under a lease, until none is left to take."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any

from wsiseg.cohort import lease as leases
from wsiseg.cohort.lease import BEAT, PATIENCE, Lease, publish
from wsiseg.cohort.outcome import Outcome, outcome_path, read_outcome, write_outcome
from wsiseg.cohort.plan import Plan, Planned, in_order
from wsiseg.errors import StoreError, WsisegError, brief
from wsiseg.pipeline import segment_slide
from wsiseg.progress import Progress
from wsiseg.store import WorkingStore, store_path, writing

log = logging.getLogger(__name__)

DEATHS = 3
"""Owners of a slide that may vanish, one after another, before it is given up: one may have met a bad node."""


class Stopped(BaseException):
    """The batch system wants this process gone; like `KeyboardInterrupt`, no `except Exception` holds it up."""


class Lost(Exception):
    """The lease of the slide is another's now."""


@dataclass(slots=True)
class Stop:
    """Signals that end a run: during a slide at once, elsewhere as soon as nothing can be left half done.

    asked : int or None      the signal that came
    """

    asked: int | None = None
    _breakable: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.asked = self.asked or number
        if self._breakable:
            raise Stopped

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Let a signal raise `Stopped` within."""
        self._breakable = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._breakable = False

    def listen(self, numbers: Sequence[int] = (signal.SIGTERM, signal.SIGUSR1)) -> None:
        """Handle these signals from now on."""
        for number in numbers:
            signal.signal(number, self)


@dataclass(frozen=True, slots=True)
class Means:
    """With what a process computes; the options of `wsiseg segment` of the same names.

    options : Mapping    of the executor
    job : str            names the job for whoever looks
    patience : float     seconds without a sign of life after which another's lease is void
    """

    executor: str = "threads"
    workers: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    patience: float = PATIENCE


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
    """
    stop, tally = stop or Stop(), Tally()
    left = [slide for slide in in_order(plan.good, index, count) if not _ended(plan, slide)]
    alive: dict[int, float] = {}
    while left:
        for slide in left:
            taken = take(plan, slide, means, stop, say)
            if taken is not None:
                (tally.done if taken.state == "done" else tally.failed).append(slide.number)
        left = [slide for slide in left if not _ended(plan, slide)]
        left = [slide for slide in left if not _shows_life(plan, slide, alive)]
        if left:
            with stop.breakable():
                time.sleep(min(1.5 * BEAT, means.patience / 2))
    tally.elsewhere = [slide.number for slide in plan.good if not _ended(plan, slide)]
    return tally


def _ended(plan: Plan, slide: Planned) -> bool:
    return outcome_path(plan.state, slide.number).exists()


def _shows_life(plan: Plan, slide: Planned, seen: dict[int, float]) -> bool:
    """Whether the owner of a slide gave a sign of life between two looks."""
    try:
        touched = lease_path(plan, slide).stat().st_mtime
    except OSError:
        return False
    return touched > seen.setdefault(slide.number, touched)


def lease_path(plan: Plan, slide: Planned) -> Path:
    """Where the lease of a slide lies."""
    return plan.state / f"{slide.number:06d}.lease"


def place_of(plan: Plan, slide: Planned) -> Path:
    """Folder of what an unfinished run of a slide keeps."""
    return plan.state / f"{slide.number:06d}"


def take(plan: Plan, slide: Planned, means: Means, stop: Stop, say: Say) -> Outcome | None:
    """Work on a slide until it ends; None where it has ended, or is or becomes another's."""
    if _ended(plan, slide):
        return None
    place = place_of(plan, slide)
    done = len(WorkingStore(store_path(Path(slide.output), place)).done())
    mine = leases.acquire(lease_path(plan, slide), done=done, job=means.job, patience=means.patience)
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
        if outcome.state == "done":
            shutil.rmtree(place, ignore_errors=True)
    except Lost:
        say(f"{slide.slide}: another process has taken it over; left to it")
        return None
    finally:
        mine.leave()
    told = (
        f"{outcome.nuclei:,} nuclei, {outcome.seconds:.0f} s" if outcome.state == "done" else outcome.reason
    )
    say(f"{slide.slide}: {outcome.state}: {told}")
    return outcome


def ended(plan: Plan, slide: Planned, mine: Lease, means: Means, stop: Stop) -> Outcome:
    """How the slide ended, its result published.

    Raises
    ------
    Lost
        If the lease is another's; nothing has been published then.
    Stopped
        If a signal asked for it.
    """
    if mine.deaths >= DEATHS:
        return failure(
            f"its process vanished {mine.deaths} times in a row without finishing another tile, most likely out of "
            "memory; grant more, then wsiseg cohort retry",
            means,
        )
    place, final = place_of(plan, slide), plan.folder / slide.output
    own = place / mine.token
    try:
        own.mkdir()
        noted = place / "outcome.json"
        outcome = read_outcome(noted)
        # An earlier owner may have died between the last tile and here: its result is complete.
        made = next(place.glob(f"*/{escape(Path(slide.output).name)}"), None)
        if outcome is None and final.exists():
            return failure(f"{final} exists; move it away, then wsiseg cohort retry", means)
        if outcome is None or (made is None and not final.exists()):
            made = own / Path(slide.output).name
            outcome = computed(plan, slide, made, mine, means, stop)
            with writing(noted) as file:
                file.write(json.dumps(asdict(outcome)).encode())
        if not mine.held():
            raise Lost
        final.parent.mkdir(parents=True, exist_ok=True)
        if made is not None and not publish(made, final) and not mine.held():
            raise Lost
        return outcome
    except Lost:
        raise
    except Exception as error:
        if not mine.held():
            raise Lost from error
        return failure(str(error) if isinstance(error, WsisegError) else brief(error), means)
    finally:
        if not mine.held():
            shutil.rmtree(own, ignore_errors=True)


def computed(plan: Plan, slide: Planned, made: Path, mine: Lease, means: Means, stop: Stop) -> Outcome:
    """Segment the slide into `made`."""
    began, told = time.monotonic(), [0.0]

    def watch(now: Progress) -> None:
        if mine.lost.is_set():
            raise Lost
        if time.monotonic() - told[0] >= BEAT or now.done == now.total:
            told[0] = time.monotonic()
            mine.say(stage=now.stage, tiles=now.done, of=now.total, nuclei=now.nuclei, rate=now.rate)

    def segment(work_dir: Path) -> tuple[int, float, int]:
        with stop.breakable():
            result = segment_slide(
                slide.slide,
                outputs=[made],
                model=slide.model or plan.options.model,
                slide_mpp=slide.slide_mpp,
                roi=slide.roi or None,
                use_bounds=plan.options.use_bounds,
                executor=means.executor,
                workers=means.workers,
                executor_options=means.options,
                device=means.device,
                batch_size=means.batch_size,
                tile_size=plan.options.tile_size,
                threshold=plan.options.threshold,
                min_area_um2=plan.options.min_area_um2,
                measure=plan.options.measure,
                work_dir=work_dir,
                overwrite=True,
                in_memory=False,
                progress=watch,
            )
        return result.count, result.survey.tissue_mm2, result.survey.plan.n_tiles

    try:
        nuclei, mm2, tiles = segment(place_of(plan, slide))
    except StoreError as error:
        # An owner that was thought dead may hold the store yet, or take it away: then from the beginning, alone.
        if not mine.held():
            raise Lost from error
        log.warning("%s: %s; beginning anew", slide.slide, error)
        nuclei, mm2, tiles = segment(made.parent)
    return replace(
        blank(means), state="done", nuclei=nuclei, mm2=mm2, tiles=tiles, seconds=time.monotonic() - began
    )


def blank(means: Means) -> Outcome:
    """An outcome that knows only when and where."""
    return Outcome("", ended=time.time(), host=socket.gethostname(), job=means.job)


def failure(reason: str, means: Means) -> Outcome:
    """The outcome of a slide that cannot be segmented."""
    return replace(blank(means), state="failed", reason=" ".join(reason.split()))
