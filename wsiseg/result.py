"""What was found on a slide: from the claims of tiles to nuclei in level-0 pixels, and into files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsiseg.errors import ConfigError
from wsiseg.export import ExportInfo, exporter_for, zarr
from wsiseg.export.zarr import read_store
from wsiseg.measure import shape_columns
from wsiseg.models import ModelCard
from wsiseg.nuclei import NucleusTable
from wsiseg.progress import Progress, Watch
from wsiseg.regions import region_contains
from wsiseg.stitch import by_grid_row, resolve_rows
from wsiseg.store import WorkingStore
from wsiseg.survey import Survey
from wsiseg.version import __version__

PIECE = 50_000
"""Nuclei that an exporter is given at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What was found on a slide.

    count : int              nuclei
    survey : Survey          the slide, its regions and the plan
    info : ExportInfo        what an exporter is told beside the nuclei
    table                    the nuclei, level-0 pixels; None where they were not to be held in memory
    """

    count: int
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


def pieces(nuclei: NucleusTable, size: int = PIECE) -> Iterator[NucleusTable]:
    """The table in runs of `size` nuclei."""
    return (
        nuclei.take(np.arange(start, min(start + size, len(nuclei)))) for start in range(0, len(nuclei), size)
    )


def merge(
    store: WorkingStore,
    found: Survey,
    card: ModelCard,
    info: ExportInfo,
    *,
    shape: bool,
    watch: Watch | None = None,
) -> int:
    """Write the nuclei of a slide to `store.merged`, from the finished tasks; returns how many there are.

    What an earlier run merged stays. No more than a few rows of the grid are held at a time.

    Raises
    ------
    StoreError
        If what a task left is damaged.
    OutputError
        If it cannot be written.
    """
    if store.merged.exists():
        return sum(map(len, read_store(store.merged)[1]))

    def rows() -> Iterator[NucleusTable]:
        count, began = 0, time.monotonic()
        index = [tile.index for tile in found.plan.tiles]
        for nuclei in settle(store.tables(), found, card, shape=shape):
            count += len(nuclei)
            yield nuclei
            if watch and len(nuclei):
                done = int(np.searchsorted(index, nuclei.tile.max(), side="right"))
                rate = done / max(1e-9, time.monotonic() - began)
                watch(Progress("joining seams", done, len(index), count, rate))

    return zarr.write(store.merged, rows(), info)


def settle(
    claims: Iterable[NucleusTable], found: Survey, card: ModelCard, *, shape: bool
) -> Iterator[NucleusTable]:
    """The nuclei of a slide, from the claims of its tasks, a row of the grid after another.

    Seams are resolved, what lies outside the ROI is left out, outlines are scaled to level 0.

    Parameters
    ----------
    claims
        Of one task after another, in plan pixels.
    found, card
        The slide and the model.
    shape
        Whether shapes are measured: only now are outlines final.
    """
    rows = resolve_rows(by_grid_row(claims, found.plan), found.plan, **by_model(card))
    for nuclei in rows:
        inside = region_contains(found.roi, nuclei.centroid * found.scale) if found.roi else None
        kept = to_level0(nuclei if inside is None else nuclei.take(inside), scale=found.scale, mpp=found.mpp)
        if shape:
            shapes = shape_columns(kept.vertices, kept.offsets, mpp=found.mpp)
            kept = replace(kept, columns={**shapes, **kept.columns})
        yield kept


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
    )


def about(found: Survey, card: ModelCard, settings: Mapping[str, object], began: float) -> ExportInfo:
    """What exporters are told beside the nuclei; `began` is when the run did, seconds of the epoch."""
    return ExportInfo(
        fingerprint=found.fingerprint,
        class_names=card.class_names,
        class_colors=card.class_colors,
        regions=found.regions,
        mpp=found.mpp,
        provenance={
            "slide": Path(found.slide.path).name,
            "model": {"name": card.name, "about": dict(card.about)},
            "settings": dict(settings),
            "versions": {"wsiseg": __version__, **{n: version(n) for n in ("numpy", "torch")}},
            "times": {"began": stamp(began), "ended": stamp(time.time())},
        },
    )


def stamp(seconds: float) -> str:
    """A time of the epoch as text, in UTC.

    >>> stamp(0)
    '1970-01-01T00:00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
