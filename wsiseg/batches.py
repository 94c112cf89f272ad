"""Flat-kernel mean-shift as dense linear algebra in torch, for a GPU, and where nothing is compiled.

Points are sorted into blocks of the plane that their first two numbers span; each block with its seeds and the points
around it is a small dense problem, and many are solved at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from wsiseg.plane import Plane, alike, blocks, padded

MAX_DRIFT = 3.0
"""How far a seed may wander from its block, embedding units; it would take a nucleus of 20 pixels more."""

SLACK = 0.75
"""How far a mode may move in the last shifts before the points near it are looked up again, embedding units."""

FAR = 1e4
"""Where points are put that only fill up a block: under nobody's kernel."""

SHIFTS, ROUNDS = 3, 25
"""Steps of the shift before what still moves is sorted anew, and how often at most: the shift of a flat kernel ends
when its points do not change any more, nearly always before 15 steps."""


def mean_shift(
    pixels: NDArray[np.float32],
    points: NDArray[np.float32],
    weights: NDArray[np.float32],
    seeds: NDArray[np.float32],
    *,
    bandwidth: float,
    alike: float,
    block: float,
    device: str,
) -> NDArray[np.int64]:
    """Index of the mode nearest to each pixel; as `wsiseg.loops.mean_shift`, in blocks of side `block`."""
    every, some, heavy, begin = (
        torch.from_numpy(rows).to(device) for rows in (pixels, points, weights, seeds)
    )
    begun = separate(*_modes(some, heavy, begin, block, bandwidth, rounds=1, steps=1), alike * bandwidth)
    go_on = torch.from_numpy(begun.astype(np.float32)).to(device)
    ended = separate(*_modes(some, heavy, go_on, block, bandwidth), alike * bandwidth)
    if not len(ended):
        return np.full(len(pixels), -1)
    modes = separate(*_among_all(ended, every, torch.ones_like(every[:, 0]), bandwidth), bandwidth)
    return _nearest(every, modes, block).cpu().numpy()


def _modes(
    points: Tensor,
    weights: Tensor,
    seeds: Tensor,
    block: float,
    bandwidth: float,
    *,
    rounds: int = ROUNDS,
    steps: int = SHIFTS,
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
    for _ in range(rounds):
        n_moving = torch.bincount(of_seed[moving], minlength=len(corners))
        still = []
        for some in alike(n_moving, n_points):
            place, there = padded(n_moving, some)
            mine = moving[place]
            place, real = padded(n_points, some)
            near = points[point[place]] - base[some][:, None]
            ends, heavy, moves = _shift(
                here[mine], near, weights[point[place]] * real, bandwidth, steps=steps
            )
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


def separate(modes: Tensor, weights: Tensor, bandwidth: float) -> NDArray[np.float64]:
    """(M, D) modes, heaviest first, none within the bandwidth of an earlier one."""
    at = modes.cpu().numpy().astype(np.float64)
    # Rounded, so that two seeds that ended in one place are one mode whatever the last bits are.
    order = np.lexsort((at[:, 1].round(2), at[:, 0].round(2), -weights.cpu().numpy()))
    at = at[order]
    keep = np.ones(len(at), bool)
    tree = cKDTree(at)
    # Asked of kept modes alone: the ends of a nucleus lie in one place, and all pairs of them would fill the memory.
    for i in range(len(at)):
        if keep[i]:
            around = np.asarray(tree.query_ball_point(at[i], bandwidth))
            keep[around[around > i]] = False
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
