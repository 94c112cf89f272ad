"""Mean-shift over instance embeddings.

Flat kernel, as De Brabandere et al. (2017) and Liu et al. (2022) use it. In `output` form an embedding's
first two numbers are a position in the slide, so a pixel can only meet pixels near it, and the work per pixel is
constant.

Modes are first sought among the means of cells of pixels, weighted by their pixels, from the means of smaller
cells; where these end, the search goes on among the pixels themselves. Cells lie on a grid of the plan, so that
overlapping tiles do the same sums.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsiseg import batches, compiled, loops
from wsiseg.label_sums import HALVES

BLOCK = 64
"""Side of a block in plan pixels: whole blocks are taken off positions, and a GPU takes block by block."""

CELL = (4, 8)
"""Rows and columns of plan pixels that make one point of the first search."""

SEED = (2, 2)
"""Rows and columns of plan pixels that make one seed: where nuclei are unclear, coarser ones miss heavy modes."""

ALIKE = 0.1
"""Seeds within this share of the bandwidth, after one of the first shifts or at the end of the first search, go on as one."""


def cluster_anchored(
    offsets: NDArray[np.floating],
    foreground: NDArray[np.bool_],
    *,
    origin: tuple[int, int],
    scale: float,
    bandwidth: float = 1.5,
    device: str = "cpu",
    cell: tuple[int, int] = CELL,
    seed: tuple[int, int] = SEED,
) -> NDArray[np.int32]:
    """Clusters of anchored embeddings `(scale * y + o_y, scale * x + o_x, e_3 ..)`.

    Parameters
    ----------
    offsets : (D, H, W) float    embeddings without their anchor
    foreground : (H, W) bool
    origin : (y, x)              of the first pixel in the plan
    scale : float                embedding units per pixel
    cell, seed : (rows, columns)
        Plan pixels that make one point and one seed of the first search; (1, 1) takes every pixel.

    Returns
    -------
    (H, W) int32    0 outside the foreground, else the number 1.. of the nearest mode

    Modes come in the order of the points under their kernel, most first; equal ones in reading order of
    their position. A mode within the bandwidth of one that comes earlier is dropped, as in scikit-learn.
    """
    clusters = np.zeros(foreground.shape, np.int32)
    if not foreground.any():
        return clusters
    # Far out in a slide float32 would lose positions; without whole blocks of the plan they are exact.
    start = (origin[0] % BLOCK, origin[1] % BLOCK)
    pixels, index = _embed(offsets, foreground, start, scale)
    points, weights = _cell_means(pixels, index, foreground.shape, start, cell)
    seeds, _ = _cell_means(pixels, index, foreground.shape, start, seed)
    shift = loops.mean_shift
    if device != "cpu" or not compiled.AVAILABLE:
        shift = partial(batches.mean_shift, block=BLOCK * scale, device=device)
    clusters.reshape(-1)[index] = shift(pixels, points, weights, seeds, bandwidth=bandwidth, alike=ALIKE) + 1
    return clusters


def _embed(
    offsets: NDArray[np.floating], mask: NDArray[np.bool_], start: tuple[int, int], scale: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, D) float32 anchored embeddings of the pixels of `mask`, and their flat indices."""
    index = np.flatnonzero(mask)
    if compiled.AVAILABLE and offsets.dtype == np.float16:
        return loops.embed(offsets.view(np.uint16), HALVES, index, start, scale), index
    embedded = _rows(offsets, index)
    y, x = np.divmod(index, mask.shape[1])
    embedded[:, :2] += np.stack([y + start[0], x + start[1]], axis=1).astype(np.float32) * np.float32(scale)
    return embedded, index


def _rows(maps: NDArray[np.floating], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, D) float32 of maps (D, H, W) at flat indices of pixels."""
    return np.ascontiguousarray(maps.reshape(len(maps), -1)[:, index].T, dtype=np.float32)


def _cell_means(
    pixels: NDArray[np.float32],
    index: NDArray[np.int64],
    shape: tuple[int, ...],
    start: tuple[int, int],
    cell: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(P, D) mean embedding of the pixels of each cell of the plan, and (P,) their number, in reading order."""
    if compiled.AVAILABLE:
        return loops.cell_means(pixels, index, shape[1], start, cell)
    y, x = np.divmod(index, shape[1])
    columns = (shape[1] + start[1]) // cell[1] + 1
    key = (y + start[0]) // cell[0] * columns + (x + start[1]) // cell[1]
    sizes = np.bincount(key)
    present = np.flatnonzero(sizes)
    place = np.zeros(len(sizes), np.int64)
    place[present] = np.arange(len(present))
    sums = torch.zeros(len(present), pixels.shape[1])
    sums.index_add_(0, torch.from_numpy(place[key]), torch.from_numpy(pixels))
    weights = torch.from_numpy(sizes[present].astype(np.float32))
    return (sums / weights[:, None]).numpy(), weights.numpy()


def cluster_free(
    embedding: NDArray[np.floating],
    foreground: NDArray[np.bool_],
    *,
    bandwidth: float = 1.5,
    device: str = "cpu",
    share: int = 8,
) -> NDArray[np.int32]:
    """Clusters of embeddings without an anchor (`input` and `patch` form).

    One in `share` foreground pixels is a point, one in four points a seed. Returns as `cluster_anchored`.
    """
    clusters = np.zeros(foreground.shape, np.int32)
    index = np.flatnonzero(foreground)
    if not len(index):
        return clusters
    pixels = _rows(embedding, index)
    points = pixels[::share]
    search = _modes if device == "cpu" and compiled.AVAILABLE else partial(_modes_dense, device=device)
    clusters.reshape(-1)[index] = search(pixels, points, points[::4], bandwidth) + 1
    return clusters


def _modes(
    pixels: NDArray[np.float32], points: NDArray[np.float32], seeds: NDArray[np.float32], bandwidth: float
) -> NDArray[np.int64]:
    """Index of the mode nearest to each pixel, on the processor."""
    every = np.ones(len(points), np.float32)
    for steps in (1, 1, 1, 1, 2, 2, 4):  # a seed meets nearly every point: the fewer go on, the better
        seeds = loops.separate(*loops.shift(points, every, seeds, bandwidth, steps, True), ALIKE * bandwidth)
    ended = loops.shift(points, every, seeds, bandwidth, loops.STEPS, True)
    return loops.nearest(pixels, loops.separate(*ended, bandwidth), bandwidth / 2)


def _modes_dense(
    pixels: NDArray[np.float32],
    points: NDArray[np.float32],
    seeds: NDArray[np.float32],
    bandwidth: float,
    *,
    device: str,
) -> NDArray[np.int64]:
    """As `_modes`, every seed and every point at once, for a GPU, and where nothing is compiled."""
    every, some, begin = (torch.from_numpy(rows).to(device) for rows in (pixels, points, seeds))
    ends = [_shift_all(part.clone(), some, bandwidth) for part in begin.split(2048)]
    modes = batches.separate(torch.cat([e[0] for e in ends]), torch.cat([e[1] for e in ends]), bandwidth)
    at = torch.from_numpy(modes.astype(np.float32)).to(device)
    return torch.cat([torch.cdist(part, at).argmin(1) for part in every.split(65536)]).cpu().numpy()


def _shift_all(seeds: Tensor, points: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Flat-kernel mean-shift of (S, D) seeds over (P, D) points; (S, D) and the counts (S,)."""
    square = points.square().sum(1)
    count = torch.zeros(len(seeds), device=seeds.device)
    moving = torch.arange(len(seeds), device=seeds.device)
    for _ in range(loops.STEPS):
        here = seeds[moving]
        near = (square - 2 * here @ points.T <= bandwidth**2 - here.square().sum(1, keepdim=True)).float()
        number = near.sum(1)
        there = (near @ points) / number.clamp(min=1)[:, None]
        there = torch.where(number[:, None] > 0, there, here)
        step = (there - here).square().sum(1)
        seeds[moving], count[moving] = there, number
        moving = moving[step > (1e-3 * bandwidth) ** 2]
        if not len(moving):
            break
    return seeds, count
