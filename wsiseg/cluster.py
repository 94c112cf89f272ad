"""Mean-shift over instance embeddings.

Flat kernel, as De Brabandere et al. (2017) and Liu et al. (2022) use it. In `output` form an embedding's
first two numbers are a position in the slide, so a pixel can only meet pixels near it: points are sorted
into blocks of that plane, each block is one small dense problem, and the work per pixel is constant.

Modes are first sought among the means of cells of pixels, weighted by their pixels; where these end, a few further
shifts among nearly single pixels make them those of all pixels. Cells and blocks lie on a grid of the plan, so
that overlapping tiles do the same sums. Positions are kept relative to a block: far out in a slide float32 would lose
them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from wsiseg.plane import Plane, alike, blocks, padded

BLOCK = 64
"""Side of a block in plan pixels."""

MAX_DRIFT = 3.0
"""How far a seed may wander from its block, embedding units; it would take a nucleus of 20 pixels more."""

CELL = (4, 8)
"""Rows and columns of plan pixels that make one point, and one seed, of the first search."""

ALIKE = 0.5
"""Modes of the first search within this share of the bandwidth are sought as one in the last shifts."""

FINE = (1, 2)
"""Rows and columns of plan pixels that make one point of the last shifts."""

SLACK = 0.75
"""How far a mode may move in the last shifts before the points near it are looked up again, embedding units."""

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
    cell: tuple[int, int] = CELL,
) -> NDArray[np.int32]:
    """Clusters of anchored embeddings `(scale * y + o_y, scale * x + o_x, e_3 ..)`.

    Parameters
    ----------
    offsets : (D, H, W) float    embeddings without their anchor
    foreground : (H, W) bool
    origin : (y, x)              of the first pixel in the plan
    scale : float                embedding units per pixel
    cell : (rows, columns)       plan pixels that make one point of the first search; (1, 1) takes every pixel

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
    pixels, index = _embed(offsets, foreground, start, scale, device)
    points, weights = _cell_means(pixels, index, foreground.shape, start, cell)
    ends, mass = _modes(points, weights, points, block, bandwidth)
    first = _merge(ends, mass, ALIKE * bandwidth)
    if len(first):
        if cell[0] * cell[1] > FINE[0] * FINE[1]:
            points, weights = _cell_means(pixels, index, foreground.shape, start, FINE)
        modes = _merge(*_among_all(first, points, weights, bandwidth), bandwidth)
        clusters.reshape(-1)[index] = _nearest(pixels, modes, block).cpu().numpy() + 1
    return clusters


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


def _cell_means(
    pixels: Tensor,
    index: NDArray[np.int64],
    shape: tuple[int, ...],
    start: tuple[int, int],
    cell: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """(P, D) mean embedding of the pixels of each cell of the plan, and (P,) their number, in reading order."""
    y, x = np.divmod(index, shape[1])
    columns = (shape[1] + start[1]) // cell[1] + 1
    key = (y + start[0]) // cell[0] * columns + (x + start[1]) // cell[1]
    sizes = np.bincount(key)
    present = np.flatnonzero(sizes)
    place = np.zeros(len(sizes), np.int64)
    place[present] = np.arange(len(present))
    weights = torch.from_numpy(sizes[present]).to(pixels)
    sums = pixels.new_zeros(len(present), pixels.shape[1])
    sums.index_add_(0, torch.from_numpy(place[key]).to(pixels.device), pixels)
    return sums / weights[:, None], weights


def _modes(
    points: Tensor, weights: Tensor, seeds: Tensor, block: float, bandwidth: float
) -> tuple[Tensor, Tensor]:
    """Where the seeds end, (M, D), and the weight of the points under the kernel there, (M,).

    Each block with its seeds and the points around it is a small dense problem; many are solved at once. Two
    thirds of the seeds that still move do so after one more shift, so after a few the rest is sorted anew.
    """
    corners, of_seed = blocks(seeds, block)
    low = corners * block
    reach = bandwidth + MAX_DRIFT
    of_point, point = Plane(points, block).inside(low - reach, low + block + reach)
    n_points = torch.bincount(of_point, minlength=len(corners))
    base = points.new_zeros(len(corners), points.shape[1])
    base[:, :2] = low
    here, mass = seeds - base[of_seed], seeds.new_zeros(len(seeds))
    moving = of_seed.argsort(stable=True)
    for _ in range(ROUNDS):
        n_moving = torch.bincount(of_seed[moving], minlength=len(corners))
        still = []
        for some in alike(n_moving, n_points):
            place, there = padded(n_moving, some)
            mine = moving[place]
            place, real = padded(n_points, some)
            near = points[point[place]] - base[some][:, None]
            ends, heavy, moves = _shift(here[mine], near, weights[point[place]] * real, bandwidth)
            here[mine[there]], mass[mine[there]] = ends[there], heavy[there]
            still.append(mine[there & moves])
        moving = torch.cat(still)
        if not len(moving):
            break
        moving = moving[of_seed[moving].argsort(stable=True)]
    stayed = ((here[:, :2] >= -MAX_DRIFT) & (here[:, :2] < block + MAX_DRIFT)).all(1) & (mass > 0)
    return (here + base[of_seed])[stayed], mass[stayed]


def _among_all(
    modes: NDArray[np.float64], points: Tensor, weights: Tensor, bandwidth: float
) -> tuple[Tensor, Tensor]:
    """Where modes (M, D) end among points (P, D) near them, and the weight under the kernel there, (M,)."""
    here = torch.from_numpy(modes.astype(np.float32)).to(points.device)
    mass = here.new_zeros(len(here))
    moving = torch.arange(len(here), device=here.device)
    reach = bandwidth + SLACK
    plane = Plane(points, reach / 2)
    for _ in range(ROUNDS):
        base = here[moving].clone()
        base[:, 2:] = 0
        owner, point = plane.inside(base[:, :2] - reach, base[:, :2] + reach)
        n_points = torch.bincount(owner, minlength=len(moving))
        still = []
        for some in alike(torch.ones_like(n_points), n_points):
            place, real = padded(n_points, some)
            near = points[point[place]] - base[some][:, None]
            weight = weights[point[place]] * real
            mine = moving[some]
            relative = (here[mine] - base[some])[:, None]
            ends, heavy, moves = _shift(relative, near, weight, bandwidth, steps=2 * SHIFTS)
            here[mine], mass[mine] = ends[:, 0] + base[some], heavy[:, 0]
            still.append(mine[moves[:, 0]])
        moving = torch.cat(still)
        if not len(moving):
            break
    return here, mass


def _shift(
    seeds: Tensor, points: Tensor, weights: Tensor, bandwidth: float, *, steps: int = SHIFTS
) -> tuple[Tensor, Tensor, Tensor]:
    """Some steps of flat-kernel mean-shift of (B, S, D) seeds over (B, P, D) points, block by block.

    A point of weight 0 is none. Returns where the seeds are then, (B, S, D), the weight under the kernel before the
    last step, (B, S), and which seeds still move. One that rests stays where it is.
    """
    square = points.square().sum(2)[:, None]
    # One product gives the weighted sums and, from the weights as one more column, what to divide them by.
    weighted = torch.cat([points, torch.ones_like(points[..., :1])], dim=2).mul_(weights[..., None])
    moves = torch.ones(seeds.shape[:2], dtype=torch.bool, device=seeds.device)
    mass = seeds.new_zeros(seeds.shape[:2])
    for _ in range(steps):
        distance = torch.baddbmm(square, seeds, points.transpose(1, 2), alpha=-2)
        # Compared in place: True becomes 1.0 without another copy of the largest thing here.
        near = torch.le(distance, bandwidth**2 - seeds.square().sum(2, keepdim=True), out=distance)
        sums = near @ weighted
        mass = torch.where(moves, sums[..., -1], mass)
        moves = moves & (mass > 0)
        there = torch.where(moves[..., None], sums[..., :-1] / mass.clamp(min=1)[..., None], seeds)
        moves = moves & ((there - seeds).square().sum(2) > (1e-3 * bandwidth) ** 2)
        seeds = there
    return seeds, mass, moves


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
    corners, of_pixel = blocks(pixels, block)
    low = corners * block
    of_mode, mode = Plane(at, block).inside(low - MAX_DRIFT, low + block + MAX_DRIFT)
    n_modes = torch.bincount(of_mode, minlength=len(corners))
    n_pixels = torch.bincount(of_pixel, minlength=len(corners))
    order = of_pixel.argsort(stable=True)
    nearest = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    base = pixels.new_zeros(len(corners), pixels.shape[1])
    base[:, :2] = low
    lost = n_modes == 0
    for some in alike(n_pixels.masked_fill(lost, 0), n_modes):
        place, there = padded(n_pixels, some)
        mine = order[place]
        place, real = padded(n_modes, some)
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
