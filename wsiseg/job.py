"""What a run is asked for, and what all its tasks share: small, picklable, opened once a process."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wsiseg import predict
from wsiseg.checks import check_range
from wsiseg.errors import ConfigError
from wsiseg.flips import check_flips
from wsiseg.measure import MEASURES, Wanted
from wsiseg.models import ModelCard, ModelRef
from wsiseg.nuclei import NucleusTable
from wsiseg.slides.opening import open_slide
from wsiseg.slides.slide import Slide, SlideRef
from wsiseg.tiling import Tile

_slides: dict[str, Slide] = {}
_lock = threading.Lock()

Own = Callable[[NucleusTable, Tile], NucleusTable]
"""The nuclei of a tile that the tile claims."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How tiles become nuclei.

    threshold : float or None      foreground probability, instead of the model's own
    min_area : int or None         smallest nucleus in plan pixels, instead of the model's own
    batch : int or None            tiles that the networks see at once; None: what suits the device
    flips : int                    views of a tile that maps are averaged over (`wsiseg.flips`)
    """

    threshold: float | None = None
    min_area: int | None = None
    batch: int | None = None
    flips: int = 1


def make_settings(
    card: ModelCard,
    *,
    threshold: float | None = None,
    min_area_um2: float | None = None,
    batch_size: int | None = None,
    flips: int = 1,
) -> Settings:
    """Settings from what a person gives, checked.

    Raises
    ------
    ConfigError
        If one is outside its range.
    ModelError
        If this model cannot be asked for it.
    """
    check_range("threshold", threshold, 0, 1)
    check_range("min_area_um2", min_area_um2, 0, 10_000)
    check_range("batch_size", batch_size, 1, 1024)
    check_flips(flips, card.settings.get("coordinates"))
    return Settings(
        threshold=threshold,
        min_area=None if min_area_um2 is None else max(1, round(min_area_um2 / card.mpp**2)),
        batch=batch_size,
        flips=flips,
    )


def check_measures(names: Sequence[str], cells_um: float | None) -> None:
    """Refuse measurements and cells that nobody could make.

    Raises
    ------
    ConfigError
        If a measurement is unknown, or the cells' distance is outside its range.
    """
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"measure {name!r} is unknown; choose from {', '.join(MEASURES)}")
    check_range("cells_um", cells_um, 0.5, 25)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What all tasks of a run share, small and picklable.

    run : str                names this run; what is opened for it is closed with it
    slide : SlideRef
    slide_mpp : float        microns per level-0 pixel
    model : ModelRef
    mpp : float              of the plan
    own : function           (nuclei of a tile, tile) -> those that the tile claims
    settings : Settings
    threads : int            for torch, in every worker
    wanted : Wanted          what is measured once seams are resolved
    memory : float           bytes that a worker's process should do with
    """

    run: str
    slide: SlideRef
    slide_mpp: float
    model: ModelRef
    mpp: float
    own: Own
    settings: Settings
    threads: int
    wanted: Wanted = field(default_factory=Wanted)
    memory: float = math.inf


def opened(job: Job) -> tuple[Slide, predict.Model]:
    """The slide and the model of a job, opened once a process.

    Only one thread tries readers or loads a model at a time: both change what the whole process shares.
    """
    with _lock:
        predict.use_threads(job.threads)
        return _slide(job), predict.load(job.model)


def slide_of(job: Job) -> Slide:
    """The slide of a job, opened once a process."""
    with _lock:
        return _slide(job)


def _slide(job: Job) -> Slide:
    """The slide of a job, opened once a process; the lock is held."""
    if job.run not in _slides:
        _slides[job.run] = open_slide(job.slide)
    return _slides[job.run]


def release(job: Job) -> None:
    """Close the slide of a job in this process, if it is open."""
    with _lock:
        slide = _slides.pop(job.run, None)
    if slide is not None:
        slide.close()
