"""What a report says of a slide's nuclei, from one pass over them: nothing holds them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsiseg.export import ExportInfo
from wsiseg.nuclei import NucleusTable

SAMPLE = 20_000
"""Nuclei at most from which histograms are drawn and medians taken: chosen evenly over the slide."""

FIELD_UM = 100.0
"""Side of a field of the density map, microns."""


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Nuclei of a slide, counted and sampled.

    count : int
    classes : dict of int            nuclei of each class
    density : (H, W) float           nuclei per square millimetre of each field of `FIELD_UM`, level 0's corner first
    field : float                    its side, level-0 pixels
    columns                          measurements of the sampled nuclei, (S,) by name
    centroid : (S, 2) float64        of the sampled nuclei, level-0 pixels
    area, score : (S,)               their area in square microns, and their detection probability
    """

    count: int
    classes: dict[str, int]
    density: NDArray[np.float64]
    field: float
    columns: dict[str, NDArray[np.float32]]
    centroid: NDArray[np.float64]
    area: NDArray[np.floating]
    score: NDArray[np.float32]

    @property
    def median_area(self) -> float:
        """Square microns; NaN where there is no nucleus."""
        return float(np.median(self.area)) if len(self.area) else float("nan")


def summarise(
    tables: Iterable[NucleusTable], info: ExportInfo, shape: tuple[int, int], *, expected: int
) -> Summary:
    """Look at the nuclei of a slide of `shape` (H, W) level-0 pixels, of which there are about `expected`."""
    step = max(1, expected // SAMPLE)
    cell = FIELD_UM / info.mpp
    fields = np.zeros((int(np.ceil(shape[0] / cell)), int(np.ceil(shape[1] / cell))), np.int64)
    counts = np.zeros(len(info.class_names), np.int64)
    seen, kept = 0, list[NucleusTable]()
    for table in tables:
        at = np.clip((table.centroid / cell).astype(np.int64), 0, np.array(fields.shape) - 1)
        np.add.at(fields, tuple(at.T), 1)
        counts += np.bincount(table.label, minlength=len(counts))
        kept.append(table.take(np.arange(-seen % step, len(table), step)))
        seen += len(table)
    names = list(kept[0].columns) if kept else []
    return Summary(
        seen,
        dict(zip(info.class_names, counts.tolist(), strict=True)),
        fields / (FIELD_UM / 1000) ** 2,
        cell,
        {n: np.concatenate([t.columns[n] for t in kept]) for n in names},
        np.concatenate([np.zeros((0, 2)), *(t.centroid for t in kept)]),
        np.concatenate([np.zeros(0), *(t.area * info.mpp**2 for t in kept)]),
        np.concatenate([np.zeros(0, np.float32), *(t.score for t in kept)]),
    )
