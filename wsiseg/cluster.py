"""Mean-shift over instance embeddings.

Flat kernel, as De Brabandere et al. (2017) and Liu et al. (2022) use it. In `output` form an embedding's
first two numbers are a position in the slide, so a pixel can only meet pixels near it: points are sorted
into blocks of that plane, each block is one small dense problem, and the work per pixel is constant.

Points and seeds lie on a lattice of plan pixels and blocks on a grid of the plan, so that overlapping tiles
do the same sums. Positions are kept relative to a block: far out in a slide float32 would lose them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

BLOCK = 64
"""Side of a block in plan pixels."""

MAX_DRIFT = 3.0
"""How far a seed may wander from its block, embedding units; it would take a nucleus of 20 pixels more."""

STEPS = ((2, 4), (4, 8))
"""Rows and columns of the plan from one point to the next, and from one seed to the next: 1 in 8, 1 in 32."""

ITERATIONS = 50
"""The shift of a flat kernel ends when its points do not change any more: nearly always before 15."""


def cluster_anchored(
    offsets: NDArray[np.floating],
    foreground: NDArray[np.bool_],
    *,
    origin: tuple[int, int],
    scale: float,
    bandwidth: float = 1.5,
    device: str = "cpu",
    steps: tuple[tuple[int, int], tuple[int, int]] = STEPS,
) -> NDArray[np.int32]:
    """Clusters of anchored embeddings `(scale * y + o_y, scale * x + o_x, e_3 ..)`.

    Parameters
    ----------
    offsets : (D, H, W) float    embeddings without their anchor
    foreground : (H, W) bool
    origin : (y, x)              of the first pixel in the plan
    scale : float                embedding units per pixel
    steps                        lattices of points and seeds; ((1, 1), (1, 1)) takes every pixel

    Returns
    -------
    (H, W) int32    0 outside the foreground, else the number 1.. of the nearest mode

    Modes come in the order of the points under their kernel, most first; equal ones in reading order of
    their position. A mode within the bandwidth of one that comes earlier is dropped, as in scikit-learn.
    """
    clusters = np.zeros(foreground.shape, np.int32)
    if not foreground.any():
        return clusters
    block = BLOCK * scale
    # Whole blocks are taken off the plan position: what is left is exact in float32.
    start = (origin[0] % BLOCK, origin[1] % BLOCK)
    points, _ = _embed(offsets, _lattice(foreground, origin, steps[0]), start, scale, device)
    seeds, _ = _embed(offsets, _lattice(foreground, origin, steps[1]), start, scale, device)
    if not len(seeds):
        seeds = points
    if not len(points):
        points = seeds = _embed(offsets, foreground, start, scale, device)[0]
    ends, weights = _modes(points, seeds, block, bandwidth)
    modes = _merge(ends, weights, bandwidth)
    pixels, index = _embed(offsets, foreground, start, scale, device)
    if len(modes):
        clusters.reshape(-1)[index] = _assign(pixels, modes, block).cpu().numpy() + 1
    return clusters


def _lattice(
    foreground: NDArray[np.bool_], origin: tuple[int, int], steps: tuple[int, int]
) -> NDArray[np.bool_]:
    """Every `steps[0]`-th row and `steps[1]`-th column of the plan, every other row shifted by half a step."""
    y = np.arange(foreground.shape[0]) + origin[0]
    x = np.arange(foreground.shape[1]) + origin[1]
    shift = (y // steps[0]) % 2 * (steps[1] // 2)
    on: NDArray[np.bool_] = (y % steps[0] == 0)[:, None] & ((x[None] + shift[:, None]) % steps[1] == 0)
    return on & foreground


def _embed(
    offsets: NDArray[np.floating],
    mask: NDArray[np.bool_],
    start: tuple[int, int],
    scale: float,
    device: str,
) -> tuple[Tensor, NDArray[np.int64]]:
    """(N, D) float32 anchored embeddings of the pixels of `mask`, and their flat indices."""
    index = np.flatnonzero(mask)
    flat = offsets.reshape(len(offsets), -1)
    embedded = torch.from_numpy(np.ascontiguousarray(flat[:, index].T, dtype=np.float32))
    y, x = np.divmod(index, mask.shape[1])
    anchor = np.stack([y + start[0], x + start[1]], axis=1).astype(np.float32) * np.float32(scale)
    embedded[:, :2] += torch.from_numpy(anchor)
    return embedded.to(device), index


def _modes(points: Tensor, seeds: Tensor, block: float, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Where the seeds end, (M, D), and the number of points under the kernel there, (M,)."""
    reach = bandwidth + MAX_DRIFT
    found, weights = [], []
    row, strip = None, points
    for corner, mine in _blocks(seeds, block):
        # Blocks come row by row: what lies beside a whole row is looked for once, and not for every block.
        if row is None or corner[0] != row:
            row = corner[0]
            strip = points[(points[:, 0] >= row - reach) & (points[:, 0] < row + block + reach)]
        around = (strip[:, 1] >= corner[1] - reach) & (strip[:, 1] < corner[1] + block + reach)
        base = _base(corner, points.shape[1])
        at, count = _shift(seeds[mine] - base, strip[around] - base, bandwidth)
        stayed = ((at[:, :2] >= -MAX_DRIFT) & (at[:, :2] < block + MAX_DRIFT)).all(1) & (count > 0)
        found.append(at[stayed] + base)
        weights.append(count[stayed])
    return torch.cat(found), torch.cat(weights)


def _shift(seeds: Tensor, points: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Flat-kernel mean-shift of (S, D) seeds over (P, D) points; (S, D) and the counts (S,)."""
    square = points.square().sum(1)
    count = torch.zeros(len(seeds), device=seeds.device)
    moving = torch.arange(len(seeds), device=seeds.device)
    for _ in range(ITERATIONS):
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


def _merge(modes: Tensor, weights: Tensor, bandwidth: float) -> NDArray[np.float64]:
    """(M, D) modes, heaviest first, none within the bandwidth of an earlier one."""
    at = modes.cpu().numpy().astype(np.float64)
    # Rounded, so that two seeds that ended in one place are one mode whatever the last bits are.
    order = np.lexsort((at[:, 1].round(2), at[:, 0].round(2), -weights.cpu().numpy()))
    at = at[order]
    keep = np.ones(len(at), bool)
    pairs = cKDTree(at).query_pairs(bandwidth, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(at) + 1))
    for i in np.flatnonzero(np.diff(starts)):
        if keep[i]:
            keep[pairs[starts[i] : starts[i + 1], 1]] = False
    return at[keep]


def _assign(pixels: Tensor, modes: NDArray[np.float64], block: float) -> Tensor:
    """Index of the mode nearest to each pixel, (N,) int64."""
    at = torch.from_numpy(modes.astype(np.float32)).to(pixels.device)
    nearest = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    for corner, mine in _blocks(pixels, block):
        base = _base(corner, pixels.shape[1])
        reach = MAX_DRIFT
        around = torch.zeros(0)
        while not len(around):
            inside = ((at[:, :2] >= corner - reach) & (at[:, :2] < corner + block + reach)).all(1)
            around, reach = inside.nonzero()[:, 0], 4 * reach
        close = at[around] - base
        # The square of the pixel itself is the same for all modes and is left out.
        distance = close.square().sum(1) - 2 * (pixels[mine] - base) @ close.T
        nearest[mine] = around[distance.argmin(1)]
    return nearest


def _blocks(embedded: Tensor, block: float) -> Iterator[tuple[Tensor, Tensor]]:
    """(corner (2,), indices) of every block of the plane that holds some of `embedded`, in reading order."""
    cell = (embedded[:, :2] / block).floor().long()
    low = cell.min(0).values
    width = int((cell[:, 1] - low[1]).max()) + 1
    key = (cell[:, 0] - low[0]) * width + cell[:, 1] - low[1]
    order = key.argsort(stable=True)
    keys, sizes = key[order].unique_consecutive(return_counts=True)
    for number, mine in zip(keys.tolist(), order.split(sizes.tolist()), strict=True):
        corner = torch.tensor([number // width, number % width], device=embedded.device) + low
        yield corner * block, mine


def _base(corner: Tensor, dim: int) -> Tensor:
    return torch.cat([corner, torch.zeros(dim - 2, device=corner.device)])


def cluster_free(
    embedding: NDArray[np.floating],
    foreground: NDArray[np.bool_],
    *,
    bandwidth: float = 1.5,
    device: str = "cpu",
    share: int = 8,
) -> NDArray[np.int32]:
    """Clusters of embeddings without an anchor (`input` and `patch` form): every seed meets every point.

    One in `share` foreground pixels is a point, one in four points a seed. Returns as `cluster_anchored`.
    """
    clusters = np.zeros(foreground.shape, np.int32)
    index = np.flatnonzero(foreground)
    if not len(index):
        return clusters
    flat = embedding.reshape(len(embedding), -1)[:, index].T.astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(flat)).to(device)
    points = pixels[::share]
    ends = [_shift(seeds.clone(), points, bandwidth) for seeds in points[::4].split(2048)]
    modes = _merge(torch.cat([e[0] for e in ends]), torch.cat([e[1] for e in ends]), bandwidth)
    at = torch.from_numpy(modes.astype(np.float32)).to(device)
    nearest = torch.cat([torch.cdist(part, at).argmin(1) for part in pixels.split(65536)])
    clusters.reshape(-1)[index] = nearest.cpu().numpy() + 1
    return clusters
