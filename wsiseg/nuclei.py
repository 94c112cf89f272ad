"""The nuclei that travel: one frozen table of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


def _no_columns() -> Mapping[str, NDArray[np.float32]]:
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """N outlines, as ragged arrays.

    vertices : (V, 2) float32    (y, x) corners of all rings, one after another, not closed
    offsets : (N + 1,) int64     ring i is `vertices[offsets[i]:offsets[i + 1]]`
    """

    vertices: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, index: NDArray[np.integer]) -> Rings:
        """The rings at `index`, in that order."""
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Rings(self.vertices[source], offsets)

    def moved(self, step: NDArray[np.floating] | float = 0.0, *, scale: float = 1.0) -> Rings:
        """The rings, times `scale`, then moved by `step` (dy, dx)."""
        return Rings((self.vertices * np.float32(scale) + step).astype(np.float32), self.offsets)


def together(rings: Sequence[Rings]) -> Rings:
    """All rings, in order."""
    ends = np.cumsum([0] + [len(r.vertices) for r in rings])
    offsets = [[0], *(r.offsets[1:] + end for r, end in zip(rings, ends[:-1], strict=True))]
    return Rings(np.concatenate([r.vertices for r in rings]), np.concatenate(offsets).astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class NucleusTable:
    """N nuclei with their outlines, as ragged arrays.

    mpp : float                     microns per pixel of the frame the coordinates are in
    centroid : (N, 2) float64       (y, x), pixels; the mean of the corners-at-integers pixel centres
    area : (N,) float64             square pixels
    score : (N,) float32            probability that it meets a true nucleus, where the model is calibrated; else the
                                    mean foreground probability
    label : (N,) int32              class index into `Provenance`'s class names; 0 is the first class
    tile : (N,) int32               index of the tile that saw it
    vertices : (V, 2) float32       (y, x) pixel corners of all exterior rings, one after another, not closed
    offsets : (N + 1,) int64        ring i is `vertices[offsets[i]:offsets[i + 1]]`
    columns : name -> (N,) float32  measurements, in the units their names say
    embedding : (N, D) float32      mean offset of each nucleus, or None once seams are resolved
    cells : Rings                   outlines of the cells around the nuclei, or None where none were asked for
    """

    mpp: float
    centroid: NDArray[np.float64]
    area: NDArray[np.float64]
    score: NDArray[np.float32]
    label: NDArray[np.int32]
    tile: NDArray[np.int32]
    vertices: NDArray[np.float32]
    offsets: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=_no_columns)
    embedding: NDArray[np.float32] | None = None
    cells: Rings | None = None

    def __len__(self) -> int:
        return len(self.area)

    @property
    def rings(self) -> Rings:
        """Outlines of the nuclei."""
        return Rings(self.vertices, self.offsets)

    def ring(self, i: int) -> NDArray[np.float32]:
        """Exterior of nucleus `i`: (K, 2) corners (y, x), not closed."""
        return self.vertices[self.offsets[i] : self.offsets[i + 1]]

    def bounds(self) -> NDArray[np.float32]:
        """(N, 4) y0, x0, y1, x1 of every ring."""
        if not len(self):
            return np.zeros((0, 4), np.float32)
        starts = self.offsets[:-1]
        low = np.minimum.reduceat(self.vertices, starts, axis=0)
        high = np.maximum.reduceat(self.vertices, starts, axis=0)
        return np.concatenate([low, high], axis=1)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> NucleusTable:
        """The nuclei that `which` (a mask or indices, in that order) selects."""
        index = np.flatnonzero(which) if which.dtype == bool else np.asarray(which, np.int64)
        rings = self.rings.take(index)
        return replace(
            self,
            centroid=self.centroid[index],
            area=self.area[index],
            score=self.score[index],
            label=self.label[index],
            tile=self.tile[index],
            vertices=rings.vertices,
            offsets=rings.offsets,
            columns={name: values[index] for name, values in self.columns.items()},
            embedding=None if self.embedding is None else self.embedding[index],
            cells=None if self.cells is None else self.cells.take(index),
        )

    def shift(self, dy: float, dx: float) -> NucleusTable:
        """The nuclei moved by (dy, dx) pixels."""
        step = np.array([dy, dx])
        return replace(
            self,
            centroid=self.centroid + step,
            vertices=(self.vertices + step).astype(np.float32),
            cells=None if self.cells is None else self.cells.moved(step),
        )


def empty(mpp: float, *, columns: Sequence[str] = (), dim: int | None = None) -> NucleusTable:
    """A table of no nuclei.

    >>> len(empty(0.25))
    0
    """
    return NucleusTable(
        mpp=mpp,
        centroid=np.zeros((0, 2)),
        area=np.zeros(0),
        score=np.zeros(0, np.float32),
        label=np.zeros(0, np.int32),
        tile=np.zeros(0, np.int32),
        vertices=np.zeros((0, 2), np.float32),
        offsets=np.zeros(1, np.int64),
        columns={name: np.zeros(0, np.float32) for name in columns},
        embedding=None if dim is None else np.zeros((0, dim), np.float32),
    )


def concatenate(tables: Sequence[NucleusTable]) -> NucleusTable:
    """All nuclei of `tables`, in order; the tables agree in mpp, columns, embedding and cells.

    Raises
    ------
    ValueError
        If there is no table, or if they do not agree.
    """
    if not tables:
        raise ValueError("concatenate needs at least one table; use nuclei.empty(mpp) for none")
    first = tables[0]
    for other in tables[1:]:
        if other.mpp != first.mpp or set(other.columns) != set(first.columns):
            raise ValueError("tables differ in mpp or columns and cannot be concatenated")
    rings = together([t.rings for t in tables])
    cells = [t.cells for t in tables if t.cells is not None]
    if cells and len(cells) != len(tables):
        raise ValueError("some tables carry cells and some do not")
    embeddings = [t.embedding for t in tables if t.embedding is not None]
    if embeddings and len(embeddings) != len(tables):
        raise ValueError("some tables carry embeddings and some do not")
    return NucleusTable(
        mpp=first.mpp,
        centroid=np.concatenate([t.centroid for t in tables]),
        area=np.concatenate([t.area for t in tables]),
        score=np.concatenate([t.score for t in tables]),
        label=np.concatenate([t.label for t in tables]),
        tile=np.concatenate([t.tile for t in tables]),
        vertices=rings.vertices,
        offsets=rings.offsets,
        columns={n: np.concatenate([t.columns[n] for t in tables]) for n in first.columns},
        embedding=np.concatenate(embeddings) if embeddings else None,
        cells=together(cells) if cells else None,
    )
