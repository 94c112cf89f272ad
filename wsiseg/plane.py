"""Ragged groups of embeddings as batches: points of a plane in blocks and boxes, padded and run together.

An embedding's first two numbers are its place in the plane; blocks and boxes look at these alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 1 << 18
"""Pairs of seed and point that are looked at together: on a CPU they should stay near the processor."""


def blocks(embedded: Tensor, block: float) -> tuple[Tensor, Tensor]:
    """(B, 2) int corners, in blocks, of those that hold some of `embedded`, in reading order; (N,) which one each is in."""
    cell = (embedded[:, :2] / block).floor().long()
    low = cell.min(0).values
    width = int((cell[:, 1] - low[1]).max()) + 1
    keys, which = ((cell[:, 0] - low[0]) * width + cell[:, 1] - low[1]).unique(return_inverse=True)
    return torch.stack([keys // width, keys % width], dim=1) + low, which


class Plane:
    """Points sorted into cells of the plane, so that those in a box are found at once."""

    def __init__(self, points: Tensor, cell: float) -> None:
        at = (points[:, :2] / cell).floor().long()
        self.cell, self.low, self.high = cell, at.min(0).values, at.max(0).values
        self.width = int(self.high[1] - self.low[1]) + 1
        key = (at[:, 0] - self.low[0]) * self.width + at[:, 1] - self.low[1]
        self.key, self.order = key.sort(stable=True)
        self.where = points[self.order, :2]

    def inside(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) boxes in ascending order and (K,) points, of every pair of a point and a box (low, high) that holds it.

        Of each row of cells a box needs one run.
        """
        first, last = ((side / self.cell).floor().long().clamp(self.low, self.high) for side in (low, high))
        most = int((last[:, 0] - first[:, 0]).max()) + 1
        row = first[:, :1] + torch.arange(most, device=low.device)
        start = (row - self.low[0]) * self.width - self.low[1]
        begin = torch.searchsorted(self.key, (start + first[:, 1:]).flatten())
        end = torch.searchsorted(self.key, (start + last[:, 1:]).flatten(), right=True)
        count = torch.where((row <= last[:, :1]).flatten(), end - begin, 0)
        run = torch.arange(len(count), device=low.device).repeat_interleave(count)
        at = torch.arange(len(run), device=low.device) + (begin - count.cumsum(0) + count)[run]
        owner, where = run // most, self.where[at]
        held = ((where >= low[owner]) & (where < high[owner])).all(1)
        return owner[held], self.order[at[held]]


def alike(n_seeds: Tensor, n_points: Tensor) -> Iterator[Tensor]:
    """Runs of the blocks that have seeds, with similar numbers of both, each no larger than `AT_ONCE` when padded."""
    seeds, points = n_seeds.cpu().numpy(), n_points.cpu().numpy()
    order = np.lexsort((-points, -np.ceil(np.log2(np.maximum(1, seeds)))))
    run: list[int] = []
    largest = (0, 0)
    for number in order[seeds[order] > 0].tolist():
        both = (max(largest[0], int(seeds[number])), max(largest[1], int(points[number])))
        if run and (len(run) + 1) * both[0] * both[1] > AT_ONCE:
            yield torch.tensor(run, device=n_seeds.device)
            run, both = [], (int(seeds[number]), int(points[number]))
        run.append(number)
        largest = both
    if run:
        yield torch.tensor(run, device=n_seeds.device)


def padded(sizes: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """(B, most) places of the rows of `some` blocks where rows lie block by block, and which of them are real."""
    size = sizes[some]
    first = (sizes.cumsum(0) - sizes)[some]
    place = torch.arange(int(size.max()), device=sizes.device)
    real = place < size[:, None]
    return torch.where(real, first[:, None] + place, 0), real
