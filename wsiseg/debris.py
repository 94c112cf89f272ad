"""Drawn debris for training crops: loose flakes on bare glass and layered sheets, as keratin, fibrin and folds.

Training images are clean tissue, slides are not: without an example of dark, sharp-edged matter that is no
nucleus, a network outlines it. What is drawn here is known to hold no nucleus and is taught as background.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from wsiseg.stains import STAINS


def add_debris(
    pixels: Tensor, targets: Tensor, *, background: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Lay debris over a part of a crop.

    Parameters
    ----------
    pixels : (3, H, W) float32 in 0..1
    targets : (T, H, W) int    become `background` where debris or the bare glass around it lies
    """
    shape = (pixels.shape[1], pixels.shape[2])
    layered = rng.random() < 0.35
    region = _region(shape, rng)
    density = _flakes(shape, rng, layered=layered)
    if layered:
        density += rng.uniform(0.3, 1.2)
    # No brown: sheets of it are stained cytoplasm, which may well hold nuclei.
    blue = rng.uniform(0.3, 0.65 if layered else 0.9)
    share = np.array([blue, 1 - blue, 0.0])
    stain = torch.from_numpy(share).float() @ (STAINS / STAINS.norm(dim=1, keepdim=True))
    glass = float(rng.uniform(0.9, 1.0))
    drawn = glass * torch.exp(-torch.from_numpy(density)[None] * stain[:, None, None])
    weight = torch.from_numpy(ndimage.gaussian_filter(region.astype(np.float32), 0.7))
    covered = torch.from_numpy(region)
    return drawn * weight + pixels * (1 - weight), torch.where(covered, background, targets)


def _region(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A smooth part of the crop, at times all of it; no piece is so small that it looks like a nucleus."""
    if rng.random() < 0.15:
        return np.ones(shape, bool)
    pieces, _ = ndimage.label(smooth_field(shape, rng) > rng.uniform(-0.3, 0.8))
    large = np.bincount(pieces.ravel()) > 4000
    large[0] = False
    region: NDArray[np.bool_] = large[pieces]
    return region


def smooth_field(shape: tuple[int, int], rng: np.random.Generator, *, finest: int = 6) -> NDArray[np.float32]:
    """(H, W) float32, about normally distributed, three waves across or more, but fewer than `finest`."""
    cells = int(rng.integers(3, finest))
    coarse = torch.from_numpy(rng.normal(size=(1, 1, cells, cells))).float()
    field = torch.nn.functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=False)
    smooth: NDArray[np.float32] = field[0, 0].numpy()
    return smooth


def _flakes(shape: tuple[int, int], rng: np.random.Generator, *, layered: bool) -> NDArray[np.float32]:
    """(H, W) float32 optical density of flakes that overlap; sheets share a direction."""
    total = np.zeros(shape, np.float32)
    direction, spread = rng.uniform(0, 2 * np.pi), 0.15 if layered else rng.choice([0.3, 0.8, 3.0])
    size = rng.uniform(0.6, 1.5)
    for _ in range(int(rng.integers(15, 60) if layered else rng.integers(6, 40))):
        angle = direction + rng.normal(0, spread)
        length = size * np.exp(rng.uniform(np.log(18), np.log(250 if layered else 140)))
        width = size * np.exp(rng.uniform(np.log(2), np.log(10 if layered else 45)))
        outline = _outline(rng.uniform(0, 1, 2) * shape, angle, length, width, rng)
        total += _draw_flake(shape, outline, rng)
    softness = rng.uniform(0.4, 1.5)
    rough = 1 + rng.uniform(0, 0.5) * ndimage.gaussian_filter(rng.standard_normal(shape), (1.5, 1.5)) * 3
    return (ndimage.gaussian_filter(total, softness) * rough.clip(0.2, 2)).clip(0, 3).astype(np.float32)


def _outline(
    centre: NDArray[np.floating], angle: float, length: float, width: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(2 K, 2) outline (y, x) of a bent strip of uneven width."""
    along = np.linspace(-0.5, 0.5, 9)
    bend = rng.normal(0, 0.25) * length * (along**2 - 0.08) + rng.normal(0, 0.03 * length, 9)
    half = width * rng.uniform(0.25, 0.6, (2, 9))
    sides = np.stack([np.r_[along, along[::-1]] * length, np.r_[bend + half[0], (bend - half[1])[::-1]]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outline: NDArray[np.float64] = (turn @ sides).T + centre
    return outline


def _draw_flake(
    shape: tuple[int, int], outline: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Density of one flake: even inside, darker where its edge is folded up."""
    fill, edge = rng.uniform(0.2, 1.0), rng.choice([0.0, 0.5, 1.0, 1.8]) * rng.uniform(0.5, 1)
    corners = [(float(x), float(y)) for y, x in outline]
    image = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    draw.polygon(corners, fill=int(100 * fill))
    if edge:
        first = int(rng.integers(0, len(corners)))
        part = (corners + corners)[first : first + int(rng.integers(4, len(corners) + 1))]
        draw.line(part, fill=int(100 * (fill + edge)), width=int(rng.integers(1, 6)), joint="curve")
    return np.asarray(image, np.float32) / np.float32(100)
