"""What was found on a slide: from the claims of tiles to nuclei in level-0 pixels, and into files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsiseg.export import ExportInfo, exporter_for
from wsiseg.measure import shape_columns
from wsiseg.models import ModelCard
from wsiseg.nuclei import NucleusTable
from wsiseg.regions import region_contains
from wsiseg.stitch import resolve
from wsiseg.survey import Survey
from wsiseg.tiling import TilePlan
from wsiseg.version import __version__

PIECE = 50_000
"""Nuclei that an exporter is given at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What was found on a slide.

    nuclei : NucleusTable    level-0 pixels
    survey : Survey          the slide, its regions and the plan
    info : ExportInfo        what an exporter is told beside the nuclei
    """

    nuclei: NucleusTable
    survey: Survey
    info: ExportInfo

    def write(self, path: str | Path) -> int:
        """Write the nuclei; the suffix chooses the format. Returns how many were written.

        Raises
        ------
        OutputError
            If no exporter has this suffix, or the file cannot be written.
        """
        count: int = exporter_for(Path(path)).write(Path(path), pieces(self.nuclei), self.info)
        return count


def pieces(nuclei: NucleusTable, size: int = PIECE) -> Iterator[NucleusTable]:
    """The table in runs of `size` nuclei."""
    return (
        nuclei.take(np.arange(start, min(start + size, len(nuclei)))) for start in range(0, len(nuclei), size)
    )


def settle(claims: NucleusTable, found: Survey, card: ModelCard, *, shape: bool) -> NucleusTable:
    """The nuclei of a slide, from the claims of all tiles.

    Seams are resolved, what lies outside the ROI is left out, outlines are scaled to level 0.

    Parameters
    ----------
    claims
        In plan pixels.
    found, card
        The slide and the model.
    shape
        Whether shapes are measured: only now are outlines final.
    """
    nuclei = joined(claims, found.plan, card)
    if found.roi:
        nuclei = nuclei.take(region_contains(found.roi, nuclei.centroid * found.scale))
    nuclei = to_level0(nuclei, scale=found.scale, mpp=found.mpp)
    if not shape:
        return nuclei
    shapes = shape_columns(nuclei.vertices, nuclei.offsets, mpp=found.mpp)
    return replace(nuclei, columns={**shapes, **nuclei.columns})


def joined(claims: NucleusTable, plan: TilePlan, card: ModelCard) -> NucleusTable:
    """The nuclei that the claims of all tiles are, by the numbers of a model; plan pixels."""
    return resolve(
        claims,
        plan,
        bandwidth=float(card.settings.get("bandwidth", 1.5)),
        scale=float(card.settings.get("scale", 0.15)),
    )


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
