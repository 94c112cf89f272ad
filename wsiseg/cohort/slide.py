"""One slide of a cohort, by the process that holds its lease: segmented, and its result published once."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

from wsiseg.cohort.lease import PATIENCE, Lease, publish
from wsiseg.cohort.outcome import Outcome, read_outcome
from wsiseg.cohort.plan import Plan, Planned
from wsiseg.cohort.stop import Stop, Stopped
from wsiseg.errors import ConfigError, DeviceError, ModelError, OutputError, StoreError, WsisegError, brief
from wsiseg.pipeline import segment_slide
from wsiseg.progress import Progress
from wsiseg.store import store_path, writing

log = logging.getLogger(__name__)

DEATHS = 3
"""Owners of a slide that may vanish, one after another, before it is given up: one may have met a bad node."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What a disk says that is full, read-only or broken."""


class Lost(Exception):
    """The lease of the slide is another's now."""


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


def lease_path(plan: Plan, slide: Planned) -> Path:
    """Where the lease of a slide lies."""
    return plan.state / f"{slide.number:06d}.lease"


def place_of(plan: Plan, slide: Planned) -> Path:
    """Folder of what an unfinished run of a slide keeps."""
    return plan.state / f"{slide.number:06d}"


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
