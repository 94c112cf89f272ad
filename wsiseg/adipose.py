"""Drawn fat for training crops: empty cells with nuclei pressed to their rims.

In fat a nucleus lies dark and alone at the edge of bare glass, which is where debris lies too. Training images hold little
of it, so tissue is emptied here: what is left are strands, and the nuclei on them whole.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from wsiseg.debris import smooth_field


def add_fat(
    pixels: Tensor, targets: Tensor, *, background: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Empty a part of a crop, or all of it, into cells of fat.

    Nuclei are what `targets` calls neither 0 nor `background`. Those on a strand stay as they are; the others go whole.

    Parameters
    ----------
    pixels : (3, H, W) float32 in 0..1
    targets : (T, H, W) int    become `background` where a cell was emptied

    Returns
    -------
    the same, drawn upon
    """
    shape = (pixels.shape[1], pixels.shape[2])
    nuclei = ((targets != 0) & (targets != background)).any(0).numpy()
    cells = _cells(shape, rng)
    if rng.random() < 0.4:  # the edge of a lobule
        cells &= smooth_field(shape, rng) > rng.uniform(-0.5, 0.5)
    margin = int(rng.integers(0, 4))
    spared = ndimage.binary_dilation(nuclei, iterations=margin) if margin else nuclei
    pieces, count = ndimage.label(spared, np.ones((3, 3)))
    on_strands = np.zeros(count + 1, bool)
    on_strands[pieces[~cells]] = True
    on_strands[0] = False
    empty = cells & ~on_strands[pieces]
    haze = 0.06 * rng.random() * (1 + smooth_field(shape, rng).clip(-1, 1))
    colour = rng.uniform(0.88, 0.98) + rng.normal(0, 0.008, (3, 1, 1))
    glass = torch.from_numpy((colour * np.exp(-haze)).clip(0, 1).astype(np.float32))
    weight = torch.from_numpy(ndimage.gaussian_filter(empty.astype(np.float32), float(rng.uniform(0.5, 1.2))))
    drawn = glass * weight + pixels * (1 - weight)
    return drawn, torch.where(torch.from_numpy(empty), background, targets)


def _cells(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(H, W) what lies in cells of fat, not on the strands between them: round, 30 to 90 um across at 0.25 um/px."""
    spacing = float(np.exp(rng.uniform(np.log(120), np.log(360))))
    along = [np.arange(-spacing * rng.random(), side + spacing, spacing) for side in shape]
    seeds = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, 2)
    seeds = seeds + rng.uniform(-0.35, 0.35, seeds.shape) * spacing
    # Strands are wavy.
    y, x = (axis.astype(np.float32) + 0.04 * spacing * smooth_field(shape, rng) for axis in np.indices(shape))
    first, second = np.full((2, *shape), np.inf, np.float32)
    nearest, next_nearest = np.zeros((2, *shape), np.intp)
    for number, (seed_y, seed_x) in enumerate(seeds.astype(np.float32)):
        square = (y - seed_y) ** 2 + (x - seed_x) ** 2
        closer, between = square < first, square < second
        next_nearest = np.where(closer, nearest, np.where(between, number, next_nearest))
        second = np.where(closer, first, np.minimum(second, square))
        nearest = np.where(closer, number, nearest)
        first = np.minimum(first, square)
    apart = np.linalg.norm(seeds[:, None] - seeds[None], axis=-1)[nearest, next_nearest]
    half_width = float(np.exp(rng.uniform(np.log(1.5), np.log(10))))
    cells = second - first > 2 * apart * half_width
    # Opened by a disc: where three cells meet they are round, and something lies between them.
    radius = 0.12 * spacing
    kept = ndimage.distance_transform_edt(np.pad(cells, 1, mode="edge"))[1:-1, 1:-1] > radius
    opened: NDArray[np.bool_] = ndimage.distance_transform_edt(~kept) <= radius
    return opened & cells
