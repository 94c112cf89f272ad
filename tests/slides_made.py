"""Slides and models made for tests: small, quick, and known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from wsiseg.networks.forward import to_tensor
from wsiseg.predict import save_model
from wsiseg.recipes import spn_ien
from wsiseg.samples import Sample

MPP = 0.25


def discs(
    shape: tuple[int, int], *, step: int = 40, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Dark discs on pink, (H, W, 3) uint8, and their centres (N, 2) as (y, x); no two touch."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(step, n - step + 1, step) for n in shape), indexing="ij"), -1)
    centres = grid.reshape(-1, 2) + rng.uniform(-8, 8, (grid.size // 2, 2))
    picture = np.empty((*shape, 3), np.uint8)
    picture[:] = (230, 170, 200)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cy, cx in centres:
        part = (slice(max(0, int(cy) - 9), int(cy) + 11), slice(max(0, int(cx) - 9), int(cx) + 11))
        inside = (y[part] + 0.5 - cy) ** 2 + (x[part] + 0.5 - cx) ** 2 < rng.uniform(6, 9) ** 2
        picture[part][inside] = (90, 60, 140)
    return picture, centres


def sample_of_discs() -> Sample:
    """160 x 160 px of sixteen dark discs of radius 9 on pink, with their centres."""
    rng = np.random.default_rng(0)
    points = np.array([[y, x] for y in range(24, 140, 32) for x in range(24, 140, 32)]) + 0.5
    y, x = np.mgrid[:160, :160] + 0.5
    inside = (np.hypot(y[None] - points[:, :1, None], x[None] - points[:, 1:, None]) < 9).any(0)
    image = np.where(inside[..., None], [90, 60, 140], [225, 180, 215]) + rng.normal(0, 4, (160, 160, 3))
    return Sample("discs", image.clip(0, 255).astype(np.uint8), MPP, points)


def write_slide(path: Path, pixels: NDArray[np.uint8], *, mpp: float | None = MPP) -> Path:
    """A tiled TIFF that openslide reads; without a pixel size, where `mpp` is None."""
    scale = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="deflate", **scale)
    return path


def tiny_model(folder: Path, *, mpp: float = MPP) -> Path:
    """A model that outlines such discs: SPN taught for a second, embeddings that are positions alone."""
    settings = {"width": 0.125, "min_area": 30}
    torch.manual_seed(0)
    networks = {n: build() for n, build in spn_ien.networks(spn_ien.Settings(**settings)).items()}
    teach(networks["spn"])
    for weights in networks["ien"].head.parameters():
        torch.nn.init.zeros_(weights)
    card = {
        "name": "tiny",
        "recipe": "spn_ien",
        "mpp": mpp,
        "halo": 128,
        "settings": settings,
        "class_names": ["Nucleus"],
        "class_colors": [[200, 60, 60]],
        "about": {"licence": "none"},
    }
    save_model(networks, folder, card)
    return folder


def teach(network: torch.nn.Module, *, steps: int = 60) -> None:
    """Teach a network to tell the discs, and bare glass from tissue."""
    picture, _ = discs((256, 256), seed=1)
    picture[:, 192:] = 255
    dark = torch.from_numpy(picture[..., 0] < 150).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = network(to_tensor(picture[None]).contiguous())[0, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, dark)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
