"""What was found on a slide: from the claims of tiles to nuclei in level-0 pixels, and into files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsiseg import cells, context
from wsiseg.computing import Start
from wsiseg.errors import ConfigError
from wsiseg.export import ExportInfo, exporter_for, zarr
from wsiseg.export._info import DICOM_IDENTITIES
from wsiseg.export.zarr import read_store
from wsiseg.job import Job
from wsiseg.measure import Wanted, cell_shape_columns, shape_columns
from wsiseg.measuring import Neighbourhood, measure_batch
from wsiseg.models import ModelCard
from wsiseg.nuclei import NucleusTable
from wsiseg.progress import Progress, Watch
from wsiseg.stitch import by_grid_row, resolve_rows
from wsiseg.store import WorkingStore
from wsiseg.survey import Survey
from wsiseg.version import __version__

PIECE = 10_000
"""Nuclei that an exporter is given at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What was found on a slide.

    count : int              nuclei
    classes : dict of int    nuclei of each class that the model tells apart
    survey : Survey          the slide, its regions and the plan
    info : ExportInfo        what an exporter is told beside the nuclei
    table                    the nuclei, level-0 pixels; None where they were not to be held in memory
    """

    count: int
    classes: Mapping[str, int]
    survey: Survey
    info: ExportInfo
    table: NucleusTable | None

    @property
    def nuclei(self) -> NucleusTable:
        """The nuclei, level-0 pixels.

        Raises
        ------
        ConfigError
            If they were not to be held in memory.
        """
        if self.table is None:
            raise ConfigError(
                "the nuclei were not held in memory; read an output, or leave out in_memory=False"
            )
        return self.table

    def write(self, path: str | Path) -> int:
        """Write the nuclei; the suffix chooses the format. Returns how many were written.

        Raises
        ------
        OutputError
            If no exporter has this suffix, or the file cannot be written.
        ConfigError
            If they were not to be held in memory.
        """
        count: int = exporter_for(Path(path)).write(Path(path), pieces(self.nuclei), self.info)
        return count


def class_counts(tables: Iterable[NucleusTable], names: Sequence[str]) -> dict[str, int]:
    """How many nuclei there are of each class."""
    counts = np.zeros(len(names), np.int64)
    for table in tables:
        counts += np.bincount(table.label, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def pieces(nuclei: NucleusTable, size: int = PIECE) -> Iterator[NucleusTable]:
    """The table in runs of `size` nuclei."""
    return (
        nuclei.take(np.arange(start, min(start + size, len(nuclei)))) for start in range(0, len(nuclei), size)
    )


def merge(
    store: WorkingStore,
    claims: Iterable[NucleusTable],
    found: Survey,
    card: ModelCard,
    info: ExportInfo,
    *,
    job: Job,
    start: Start,
    watch: Watch | None = None,
) -> int:
    """Write the nuclei of a slide to `store.merged`, row by row as tasks finish; returns how many there are.

    What an earlier run merged stays. No more than a few rows of the grid are held at a time.

    Parameters
    ----------
    claims
        Of one task after another, in plan pixels; taken as they are needed.
    job
        Of the tasks: it says what is measured.
    start
        Begins the workers, where pixels or cells are needed.

    Raises
    ------
    StoreError
        If what a task left is damaged.
    TaskError
        If what was found cannot be measured.
    OutputError
        If it cannot be written.
    """
    if store.merged.exists():
        return sum(map(len, read_store(store.merged)[1]))

    def rows() -> Iterator[NucleusTable]:
        count, alone, before = 0, 0.0, 0
        index = [tile.index for tile in found.plan.tiles]
        for nuclei in settle(claims, found, card, job=job, start=start):
            count += len(nuclei)
            yield nuclei
            # While tiles are still computed, they are what a watcher is told of.
            if watch and len(nuclei) and (alone or len(store.done()) == len(found.plan.tasks)):
                done = int(np.searchsorted(index, nuclei.tile.max(), side="right"))
                if not alone:
                    alone, before = time.monotonic(), done
                rate = (done - before) / max(1e-9, time.monotonic() - alone)
                watch(Progress("joining seams", done, len(index), count, rate))

    return zarr.write(store.merged, rows(), info)


def settle(
    claims: Iterable[NucleusTable], found: Survey, card: ModelCard, *, job: Job, start: Start
) -> Iterator[NucleusTable]:
    """The nuclei of a slide, from the claims of its tasks, a row of the grid or a tile after another.

    Seams are resolved, what lies outside the ROI or off the tissue is left out, what is wanted is measured, and outlines are scaled
    to level 0. Only now are outlines final and a nucleus's neighbours known, whichever tile saw them.

    Parameters
    ----------
    claims
        Of one task after another, in plan pixels.
    found, card
        The slide and the model.
    """
    rows = resolve_rows(by_grid_row(claims, found.plan), found.plan, **by_model(card))
    if not found.roi:
        # What tiles saw off the tissue depends on how large they are: it is no neighbour either.
        rows = filter(len, (nuclei.take(found.processed(nuclei.centroid)) for nuclei in rows))
    wanted = job.wanted
    if wanted.stains is None and wanted.cells_um is None:
        whole = (here.own for here in neighbourhoods(rows, found, wanted))
        yield from (final(nuclei, found, shape=wanted.shape) for nuclei in whole)
        return
    with start() as pool:
        done = pool.map(partial(measure_batch, job), neighbourhoods(rows, found, wanted))
        yield from (final(nuclei, found, shape=wanted.shape) for nuclei in in_order(done))


def neighbourhoods(rows: Iterable[NucleusTable], found: Survey, wanted: Wanted) -> Iterator[Neighbourhood]:
    """The nuclei of each tile inside the ROI, in order, with their context, and with those that may meet their cells.

    Cells and nearest neighbours heed nuclei just outside the ROI too, as far as tiles saw them.
    """
    mpp = found.plan.mpp
    growth = 2 * (wanted.cells_um or 0.0) / mpp + 2 * cells.MPP / mpp + 2
    reach = max(growth, context.reach_px(mpp) if wanted.context else 0.0)
    surface = None
    if wanted.context:
        step = context.PIECE * context.RADIUS_UM / mpp
        surface = context.Surface(found.plan.shape, found.roi, scale=found.scale, step=step)
    for nuclei, near in context.with_neighbours(rows, found.plan, reach):
        kept = found.processed(nuclei.centroid)
        own = nuclei.take(kept)
        if surface is not None:
            counted = near.take(found.processed(near.centroid))
            columns = context.context_columns(own.centroid, near.centroid, counted.centroid, surface, mpp=mpp)
            own = replace(own, columns={**own.columns, **columns})
        # Of `near`, the first are `nuclei`: which of them are a tile's own is known by their place.
        index, bounds = np.flatnonzero(kept), near.bounds()
        for tile in np.unique(own.tile):
            here = own.tile == tile
            part = own.take(here)
            box = part.bounds()
            low, high = box[:, :2].min(0) - growth, box[:, 2:].max(0) + growth
            meets = ((bounds[:, 2:] >= low) & (bounds[:, :2] <= high)).all(1)
            meets[index[here]] = False
            yield Neighbourhood(part, near.rings.take(np.flatnonzero(meets)), near.centroid[meets])


def in_order(done: Iterable[tuple[int, NucleusTable]]) -> Iterator[NucleusTable]:
    """Results in the order of their tasks, from (position, result) in any order."""
    waiting: dict[int, NucleusTable] = {}
    following = 0
    for position, result in done:
        waiting[position] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def final(nuclei: NucleusTable, found: Survey, *, shape: bool) -> NucleusTable:
    """The nuclei in level-0 pixels, with their shapes."""
    scaled = to_level0(nuclei, scale=found.scale, mpp=found.mpp)
    if not shape:
        return scaled
    shapes = (
        shape_columns(scaled.vertices, scaled.offsets, mpp=found.mpp)
        if scaled.cells is None
        else cell_shape_columns(scaled.rings, scaled.cells, mpp=found.mpp)
    )
    return replace(scaled, columns={**shapes, **scaled.columns})


def by_model(card: ModelCard) -> dict[str, float]:
    """What seams are resolved by: the bandwidth and the scale of a model's embeddings."""
    return {
        "bandwidth": float(card.settings.get("bandwidth", 1.5)),
        "scale": float(card.settings.get("scale", 0.15)),
    }


def to_level0(nuclei: NucleusTable, *, scale: float, mpp: float) -> NucleusTable:
    """The nuclei in level-0 pixels of `mpp` microns; `scale` is level-0 pixels per plan pixel."""
    return replace(
        nuclei,
        mpp=mpp,
        centroid=nuclei.centroid * scale,
        area=nuclei.area * scale**2,
        vertices=nuclei.vertices * np.float32(scale),
        embedding=None,
        cells=None if nuclei.cells is None else nuclei.cells.moved(scale=scale),
    )


def about(
    found: Survey, card: ModelCard, settings: Mapping[str, object], times: Mapping[str, str]
) -> ExportInfo:
    """What exporters are told beside the nuclei; `times` say when the run began and ended."""
    return ExportInfo(
        fingerprint=found.fingerprint,
        class_names=card.class_names,
        class_colors=card.class_colors,
        regions=found.regions,
        mpp=found.mpp,
        shape=found.shape,
        dicom={name: found.properties[name] for name in DICOM_IDENTITIES if name in found.properties},
        provenance={
            "slide": Path(found.slide.path).name,
            "model": {"name": card.name, "about": dict(card.about)},
            "settings": dict(settings),
            "versions": {"wsiseg": __version__, **{n: version(n) for n in ("numpy", "torch")}},
            "times": times,
        },
    )


def stamp(seconds: float) -> str:
    """A time of the epoch as text, in UTC.

    >>> stamp(0)
    '1970-01-01T00:00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
