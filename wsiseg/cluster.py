"""Mean-shift over instance embeddings.

Flat kernel, as De Brabandere et al. (2017) and Liu et al. (2022) use it. In `output` form an embedding's
first two numbers are a position in the slide, so a pixel can only meet pixels near it: points are sorted
into blocks of that plane, each block is one small dense problem, and the work per pixel is constant.

Points and seeds lie on a lattice of plan pixels and blocks on a grid of the plan, so that overlapping tiles
do the same sums. Positions are kept relative to a block: far out in a slide float32 would lose them.
"""

from __future__ import annotations

import math
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

AT_ONCE = 1 << 18
"""Pairs of seed and point that are looked at together: on a CPU they should stay near the processor."""

FAR = 1e4
"""Where points are put that only fill up a block: under nobody's kernel."""

SHIFTS, ROUNDS = 3, 25
"""Steps of the shift before what still moves is sorted anew, and how often at most: the shift of a flat kernel ends
when its points do not change any more, nearly always before 15 steps."""


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
    points, seeds = (_embed(offsets, _lattice(foreground, origin, s), start, scale, device)[0] for s in steps)
    if not len(seeds):
        seeds = points
    if not len(points):
        points = seeds = _embed(offsets, foreground, start, scale, device)[0]
    ends, weights = _modes(points, seeds, block, bandwidth)
    modes = _merge(ends, weights, bandwidth)
    pixels, index = _embed(offsets, foreground, start, scale, device)
    if len(modes):
        clusters.reshape(-1)[index] = _nearest(pixels, modes, block).cpu().numpy() + 1
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
    """Where the seeds end, (M, D), and the number of points under the kernel there, (M,).

    Each block with its seeds and the points around it is a small dense problem; many are solved at once. Two
    thirds of the seeds that still move do so after one more shift, so after a few the rest is sorted anew.
    """
    corners, of_seed = _blocks(seeds, block)
    of_point, point = _around(points, corners, block, bandwidth + MAX_DRIFT)
    n_points = torch.bincount(of_point, minlength=len(corners))
    base = points.new_zeros(len(corners), points.shape[1])
    base[:, :2] = corners * block
    here, count = seeds - base[of_seed], seeds.new_zeros(len(seeds))
    moving = of_seed.argsort(stable=True)
    for _ in range(ROUNDS):
        n_moving = torch.bincount(of_seed[moving], minlength=len(corners))
        still = []
        for some in _alike(n_moving, n_points):
            place, there = _padded(n_moving, some)
            mine = moving[place]
            place, real = _padded(n_points, some)
            near = (points[point[place]] - base[some][:, None]).masked_fill_(~real[..., None], FAR)
            ends, number, moves = _shift(here[mine], near, bandwidth)
            here[mine[there]], count[mine[there]] = ends[there], number[there]
            still.append(mine[there & moves])
        moving = torch.cat(still)
        if not len(moving):
            break
        moving = moving[of_seed[moving].argsort(stable=True)]
    stayed = ((here[:, :2] >= -MAX_DRIFT) & (here[:, :2] < block + MAX_DRIFT)).all(1) & (count > 0)
    return (here + base[of_seed])[stayed], count[stayed]


def _blocks(embedded: Tensor, block: float) -> tuple[Tensor, Tensor]:
    """(B, 2) int corners, in blocks, of those that hold some of `embedded`, in reading order; (N,) which one each is in."""
    cell = (embedded[:, :2] / block).floor().long()
    low = cell.min(0).values
    width = int((cell[:, 1] - low[1]).max()) + 1
    keys, which = ((cell[:, 0] - low[0]) * width + cell[:, 1] - low[1]).unique(return_inverse=True)
    return torch.stack([keys // width, keys % width], dim=1) + low, which


def _around(points: Tensor, corners: Tensor, block: float, reach: float) -> tuple[Tensor, Tensor]:
    """(K,) blocks in ascending order and (K,) points, of every pair that is no further apart than `reach`."""
    cells = math.ceil(reach / block)
    cell = (points[:, :2] / block).floor().long()
    low = torch.minimum(cell.min(0).values, corners.min(0).values) - cells
    width = int(torch.maximum(cell[:, 1].max(), corners[:, 1].max()) - low[1]) + cells + 1
    key = (cell[:, 0] - low[0]) * width + cell[:, 1] - low[1]
    order = key.argsort(stable=True)
    # In each row of cells beside a block, those that can matter lie in a row: from `first` to before `last`.
    rows = torch.arange(-cells, cells + 1, device=points.device)
    row = ((corners[:, :1] + rows - low[0]) * width + corners[:, 1:] - low[1]).flatten()
    ordered = key[order].contiguous()
    first = torch.searchsorted(ordered, row - cells)
    last = torch.searchsorted(ordered, row + cells, right=True)
    pair = torch.arange(len(row), device=points.device).repeat_interleave(last - first)
    within = torch.arange(len(pair), device=points.device)
    before = (last - first).cumsum(0) - (last - first)
    point = order[first[pair] + within - before[pair]]
    owner = pair // len(rows)
    away = points[point, :2] - corners[owner] * block
    near = ((away >= -reach) & (away < block + reach)).all(1)
    return owner[near], point[near]


def _alike(n_seeds: Tensor, n_points: Tensor) -> Iterator[Tensor]:
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


def _padded(sizes: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """(B, most) places of the rows of `some` blocks where rows lie block by block, and which of them are real."""
    size = sizes[some]
    first = (sizes.cumsum(0) - sizes)[some]
    place = torch.arange(int(size.max()), device=sizes.device)
    real = place < size[:, None]
    return torch.where(real, first[:, None] + place, 0), real


def _shift(seeds: Tensor, points: Tensor, bandwidth: float) -> tuple[Tensor, Tensor, Tensor]:
    """`SHIFTS` steps of flat-kernel mean-shift of (B, S, D) seeds over (B, P, D) points, block by block.

    Returns where the seeds are then, (B, S, D), the points under the kernel before the last step, (B, S), and which
    seeds still move. One that rests stays where it is.
    """
    square = points.square().sum(2)[:, None]
    # One product gives the sums and, from a column of ones, the numbers.
    counted = torch.cat([points, torch.ones_like(points[..., :1])], dim=2)
    moves = torch.ones(seeds.shape[:2], dtype=torch.bool, device=seeds.device)
    number = seeds.new_zeros(seeds.shape[:2])
    for _ in range(SHIFTS):
        distance = torch.baddbmm(square, seeds, points.transpose(1, 2), alpha=-2)
        # Compared in place: True becomes 1.0 without another copy of the largest thing here.
        near = torch.le(distance, bandwidth**2 - seeds.square().sum(2, keepdim=True), out=distance)
        sums = near @ counted
        number = torch.where(moves, sums[..., -1], number)
        moves = moves & (number > 0)
        there = torch.where(moves[..., None], sums[..., :-1] / number.clamp(min=1)[..., None], seeds)
        moves = moves & ((there - seeds).square().sum(2) > (1e-3 * bandwidth) ** 2)
        seeds = there
    return seeds, number, moves


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


def _nearest(pixels: Tensor, modes: NDArray[np.float64], block: float) -> Tensor:
    """Index of the mode nearest to each pixel, (N,) int64."""
    at = torch.from_numpy(modes.astype(np.float32)).to(pixels.device)
    corners, of_pixel = _blocks(pixels, block)
    of_mode, mode = _around(at, corners, block, MAX_DRIFT)
    n_modes = torch.bincount(of_mode, minlength=len(corners))
    n_pixels = torch.bincount(of_pixel, minlength=len(corners))
    order = of_pixel.argsort(stable=True)
    nearest = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    base = pixels.new_zeros(len(corners), pixels.shape[1])
    base[:, :2] = corners * block
    lost = n_modes == 0
    for some in _alike(n_pixels.masked_fill(lost, 0), n_modes):
        place, there = _padded(n_pixels, some)
        mine = order[place]
        place, real = _padded(n_modes, some)
        around, origin = mode[place], base[some][:, None]
        close = (at[around] - origin).masked_fill_(~real[..., None], FAR)
        # The square of the pixel itself is the same for all modes and is left out.
        square = close.square().sum(2)[:, None]
        distance = torch.baddbmm(square, pixels[mine] - origin, close.transpose(1, 2), alpha=-2)
        nearest[mine[there]] = around.gather(1, distance.argmin(2))[there]
    far = lost[of_pixel].nonzero()[:, 0]
    for some in far.split(4096):
        nearest[some] = torch.cdist(pixels[some], at).argmin(1)
    return nearest


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
    ends = [_shift_all(seeds.clone(), points, bandwidth) for seeds in points[::4].split(2048)]
    modes = _merge(torch.cat([e[0] for e in ends]), torch.cat([e[1] for e in ends]), bandwidth)
    at = torch.from_numpy(modes.astype(np.float32)).to(device)
    nearest = torch.cat([torch.cdist(part, at).argmin(1) for part in pixels.split(65536)])
    clusters.reshape(-1)[index] = nearest.cpu().numpy() + 1
    return clusters


def _shift_all(seeds: Tensor, points: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Flat-kernel mean-shift of (S, D) seeds over (P, D) points; (S, D) and the counts (S,)."""
    square = points.square().sum(1)
    count = torch.zeros(len(seeds), device=seeds.device)
    moving = torch.arange(len(seeds), device=seeds.device)
    for _ in range(SHIFTS * ROUNDS):
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
