"""One process working off a cohort: slide after slide, each under a lease, until none is left to take."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any

from wsiseg.cohort import lease as leases
from wsiseg.cohort.lease import BEATS, PATIENCE, Lease, Sight, Watch, publish
from wsiseg.cohort.outcome import Outcome, outcome_path, read_outcome, write_outcome
from wsiseg.cohort.plan import Plan, Planned, in_order
from wsiseg.errors import (
    ConfigError,
    DeviceError,
    ModelError,
    OutputError,
    StoreError,
    TaskError,
    WsisegError,
    brief,
)
from wsiseg.pipeline import segment_slide
from wsiseg.progress import Progress
from wsiseg.store import WorkingStore, store_path, writing

log = logging.getLogger(__name__)

DEATHS = 3
"""Owners of a slide that may vanish, one after another, before it is given up: one may have met a bad node."""

SUSPICIOUS = 5
"""Slides that may fail in a process before one is done; then it is the process that is not trusted."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What a disk says that is full, read-only or broken."""


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
        first, self.asked = self.asked is None, self.asked or number
        if first and self._breakable:
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

    def listen(self) -> None:
        """Handle SIGTERM, SIGUSR1 and, unless it is ignored (nohup), SIGHUP from now on."""
        signal.signal(signal.SIGTERM, self)
        signal.signal(signal.SIGUSR1, self)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self)


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


def lease_path(plan: Plan, slide: Planned) -> Path:
    """Where the lease of a slide lies."""
    return plan.state / f"{slide.number:06d}.lease"


def place_of(plan: Plan, slide: Planned) -> Path:
    """Folder of what an unfinished run of a slide keeps."""
    return plan.state / f"{slide.number:06d}"


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
    InputError
        If no slide could be segmented by this process.
    """
    if mine.deaths >= DEATHS:
        return failure(
            f"its process vanished {mine.deaths} times in a row without finishing another tile, most likely out of "
            "memory; grant more, then wsiseg cohort retry",
            means,
        )
    own = place_of(plan, slide) / mine.token
    try:
        own.mkdir()
        return _published(plan, slide, own, mine, means, stop)
    except Lost:
        raise
    except Exception as error:
        if not mine.held():
            raise Lost from error
        if ours(error, slide):
            raise
        return failure(str(error) if isinstance(error, WsisegError) else brief(error), means)
    finally:
        if not mine.held():
            shutil.rmtree(own, ignore_errors=True)


def ours(error: Exception, slide: Planned) -> bool:
    """Whether it is this process that fails, and not the slide: another slide would fail as well.

    >>> from wsiseg.errors import SlideError
    >>> ours(DeviceError("no such device"), Planned(0, "a.svs")), ours(SlideError("damaged"), Planned(0, "a.svs"))
    (True, False)
    """
    if isinstance(error, ModelError):
        return not slide.model
    cause = error if isinstance(error, OSError) else error.__cause__
    full = isinstance(cause, OSError) and cause.errno in DISK
    return full or isinstance(error, ConfigError | DeviceError)


def _published(plan: Plan, slide: Planned, own: Path, mine: Lease, means: Means, stop: Stop) -> Outcome:
    """The slide segmented, unless an earlier owner had, and its result under its final name."""
    place, final = place_of(plan, slide), plan.folder / slide.output
    noted = place / "outcome.json"
    outcome = read_outcome(noted)
    if outcome is None and final.exists():
        raise OutputError(f"{final} exists; move it away, then wsiseg cohort retry")
    # An earlier owner may have died between the last tile and here: its result is complete.
    made = next(place.glob(f"*/{escape(Path(slide.output).name)}"), None)
    if outcome is None or (made is None and not final.exists()):
        made = own / Path(slide.output).name
        outcome = computed(plan, slide, made, mine, means, stop)
        with writing(noted) as file:
            file.write(json.dumps(asdict(outcome)).encode())
    if not mine.held():
        raise Lost
    if made is None:
        return outcome
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        first = publish(made, final)
    except FileNotFoundError:
        # An owner that was thought dead has given it its name at this very moment.
        if not final.exists():
            raise
        first = True
    if not first and not mine.held():
        raise Lost
    return outcome


def computed(plan: Plan, slide: Planned, made: Path, mine: Lease, means: Means, stop: Stop) -> Outcome:
    """Segment the slide into `made`."""
    place, began, told = place_of(plan, slide), time.monotonic(), [0.0]

    def watch(now: Progress) -> None:
        if mine.lost.is_set():
            raise Lost
        if stop.asked:  # a signal that came where nothing could be raised
            raise Stopped
        if time.monotonic() - told[0] >= mine.beat or now.done == now.total:
            told[0] = time.monotonic()
            if now.stage == "segmenting":
                mine.say(stage=now.stage, tiles=now.done, nuclei=now.nuclei, rate=now.rate)
            else:
                mine.say(stage=now.stage, tiles=slide.tiles)

    def segment() -> tuple[int, float, int]:
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
                flips=plan.options.flips,
                measure=plan.options.measure,
                stains=plan.options.stains,
                cells_um=plan.options.cells_um,
                work_dir=place,
                overwrite=True,
                in_memory=False,
                keep_store=True,  # until its outcome is noted
                progress=watch,
            )
        return result.count, result.survey.tissue_mm2, result.survey.plan.n_tiles

    try:
        nuclei, mm2, tiles = segment()
    except StoreError as error:
        if not mine.held():
            raise Lost from error
        if ours(error, slide):
            raise
        # An owner that was thought dead may hold the store's lock yet, and a lost node's may be held for ever.
        log.warning("%s: %s; going on in a copy", slide.slide, error)
        copied(store_path(made, place), made.parent / "before")
        nuclei, mm2, tiles = segment()
    return replace(
        blank(means), state="done", nuclei=nuclei, mm2=mm2, tiles=tiles, seconds=time.monotonic() - began
    )


def copied(store: Path, aside: Path) -> None:
    """Put a store aside and one with the same finished tasks, but a lock of its own, in its place."""
    if not store.exists():
        return
    store.rename(aside)
    store.mkdir()
    for file in (*aside.glob("settings.json"), *aside.glob("[0-9]*.npz")):
        os.link(file, store / file.name)


def blank(means: Means) -> Outcome:
    """An outcome that knows only when and where."""
    return Outcome("", ended=time.time(), host=socket.gethostname(), job=means.job)


def failure(reason: str, means: Means) -> Outcome:
    """The outcome of a slide that cannot be segmented."""
    return replace(blank(means), state="failed", reason=" ".join(reason.split()))
