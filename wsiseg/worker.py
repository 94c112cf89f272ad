"""What a worker does with one task: read, predict, group, trace, measure, claim."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from wsiseg import measure, nuclei, polygons, predict, stitch
from wsiseg.errors import InputError, TaskError
from wsiseg.maps import Maps
from wsiseg.models import ModelRef
from wsiseg.nuclei import NucleusTable
from wsiseg.slides.opening import open_slide
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef
from wsiseg.tiling import Tile

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Settings:
    """How tiles become nuclei.

    threshold : float or None      foreground probability, instead of the model's own
    min_area : int or None         smallest nucleus in plan pixels, instead of the model's own
    stain : bool                   whether stain densities are measured
    batch : int or None            tiles that the networks see at once; None: what suits the device
    """

    threshold: float | None = None
    min_area: int | None = None
    stain: bool = False
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a run share, small and picklable.

    slide : SlideRef
    model : ModelRef
    mpp : float         of the plan
    settings : Settings
    threads : int       for torch, in every worker
    """

    slide: SlideRef
    model: ModelRef
    mpp: float
    settings: Settings
    threads: int


def segment_batch(job: Job, tiles: tuple[Tile, ...]) -> NucleusTable:
    """Nuclei that the tiles of one task claim, in plan pixels.

    Raises
    ------
    InputError
        If the slide or the model cannot be used.
    TaskError
        If anything else goes wrong; names the tiles.
    """
    try:
        with _loading:
            model = predict.load(job.model)
        with closing(open_slide(job.slide)) as slide:
            return segment_tiles(model, PlanView(slide, job.mpp), tiles, job.settings)
    except InputError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise TaskError(
            f"{job.slide.path}: tiles {tiles[0].index} to {tiles[-1].index}, from (y, x) "
            f"({tiles[0].core.y0}, {tiles[0].core.x0}) of the plan: {type(error).__name__}: {first}"
        ) from error


def segment_tiles(
    model: predict.Model, view: PlanView, tiles: Sequence[Tile], settings: Settings
) -> NucleusTable:
    """Nuclei that `tiles` claim, in the order of the tiles; no more maps are held than those of a batch."""
    size = settings.batch or (1 if model.device == "cpu" else len(tiles))
    found = []
    for i in range(0, len(tiles), size):
        batch = tiles[i : i + size]
        images = np.stack([view.read(tile.outer) for tile in batch])
        maps = model.predict(images, [(tile.outer.y0, tile.outer.x0) for tile in batch])
        maps.reverse()
        found += [segment_tile(model, image, maps.pop(), tile, settings) for image, tile in zip(images, batch, strict=True)]
    return nuclei.concatenate(found)
