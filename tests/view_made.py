"""A slide with known nuclei and their results, for tests of the viewer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from slides_made import MPP, write_slide

from wsiseg.export import ExportInfo, exporter_for
from wsiseg.nuclei import NucleusTable
from wsiseg.slides.opening import fingerprint

CLASSES = ("Tumour", "Stroma")
COLORS = ((255, 0, 0), (0, 0, 255))
RADIUS = 20.0
"""Of the discs, level-0 pixels."""


def nuclei_at(centres: NDArray[np.float64], *, radius: float = RADIUS, seed: int = 0) -> NucleusTable:
    """Sixteen-cornered nuclei of two classes, one after the other in turn, with probabilities."""
    rng = np.random.default_rng(seed)
    n = len(centres)
    turn = np.arange(16) / 16 * 2 * np.pi
    ring = radius * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    return NucleusTable(
        mpp=MPP,
        centroid=centres,
        area=np.full(n, 8 * radius**2 * np.sin(np.pi / 8)),
        score=rng.uniform(0.3, 1, n).astype(np.float32),
        label=(np.arange(n) % 2).astype(np.int32),
        tile=np.zeros(n, np.int32),
        vertices=(centres[:, None] + ring).reshape(-1, 2).astype(np.float32),
        offsets=np.arange(n + 1, dtype=np.int64) * 16,
        columns={"Area µm^2": np.arange(n, dtype=np.float32) + 1, "Circularity": np.full(n, 0.9, np.float32)},
    )


def made(
    folder: Path, shape: tuple[int, int] = (1500, 2100), *, step: int = 100
) -> tuple[Path, Path, NucleusTable]:
    """A slide with dark discs on pink, the store beside it that names it, and its nuclei."""
    grid = np.stack(np.meshgrid(*(np.arange(step / 2, n, step) for n in shape), indexing="ij"), -1)
    centres = grid.reshape(-1, 2)
    y, x = np.mgrid[: shape[0], : shape[1]]
    # A ramp, so that a tile in the wrong place is noticed.
    pixels = np.stack([200 + y * 50 // shape[0], 120 + x * 100 // shape[1], np.full(shape, 190)], -1)
    inside = (y % step + 0.5 - step / 2) ** 2 + (x % step + 0.5 - step / 2) ** 2 < (RADIUS - 4) ** 2
    pixels[inside] = (80, 50, 130)
    slide = write_slide(folder / "drawn.tif", pixels.astype(np.uint8))
    nuclei = nuclei_at(centres)
    store = folder / "drawn.zarr"
    write(store, nuclei, fingerprint(str(slide)), slide.name)
    return slide, store, nuclei


def write(path: Path, nuclei: NucleusTable, mark: str = "abc", slide: str = "drawn.tif") -> Path:
    """A result of these nuclei, in the format of the suffix."""
    info = ExportInfo(
        fingerprint=mark,
        mpp=MPP,
        class_names=CLASSES,
        class_colors=COLORS,
        provenance=json.loads(json.dumps({"slide": slide})),
    )
    assert exporter_for(path).write(path, iter([nuclei]), info) == len(nuclei)
    return path
