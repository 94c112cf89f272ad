"""Self-supervised start of an encoder: which nuclei are larger, and where are more of them? (Xie et al. 2020).

Four quarters of a crop give what is compared: one is the anchor, its neighbour the positive sample, and a part of the
neighbour, enlarged, the negative one, with larger and fewer nuclei. No label is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.losses import count_ranking_loss, scale_triplet_loss
from wsiseg.networks.resunet import ResNetEncoder
from wsiseg.samples import Sample
from wsiseg.stages import Networks, Options, Schedule, Stage

NAME = "encoder"
"""Name of the stage, for `Stage.init` of the ones after it."""

PARTS = (512 / 768, 256 / 768, 128 / 768, 64 / 768)
"""Sides of the negative samples, of the positive sample's (section 2.1)."""

FEATURES = 128
"""Numbers z of a crop (section 2.2)."""


class RankingNetwork(ResNetEncoder):
    """An encoder with the two heads of the proxy tasks.

    (B, 3, H, W) in 0..1 to (B, 128) features z and (B,) counts f(z), whose order alone means something.
    """

    def __init__(self, *, depth: int = 18, width: float = 1.0) -> None:
        super().__init__(depth=depth, width=width)
        self.features = nn.Linear(self.channels[-1], FEATURES)
        self.count = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        z = self.features(self.encode(x)[-1].mean((2, 3)))
        return z, self.count(z)[:, 0]


def stage(depth: int, width: float, schedule: Schedule, *, given_by: str = "spn") -> Stage:
    """The stage that teaches an encoder; others start from it by `init=NAME`.

    Where training starts from a trained model, the encoder of its network `given_by` is taken instead.
    """
    network: Callable[[], nn.Module] = partial(RankingNetwork, depth=depth, width=width)
    return Stage(NAME, network, no_targets, ranking_loss, schedule, given_by=given_by)


def no_targets(sample: Sample, _: Options, __: Networks) -> NDArray[np.int8]:
    """(1, H, W) of zeros: nothing is known, and nothing needs to be."""
    return np.zeros((1, *sample.image.shape[:2]), np.int8)


def ranking_loss(network: nn.Module, images: Tensor, _: Tensor, rng: np.random.Generator) -> Tensor:
    """Eq. 3: scale-wise triplet loss and count ranking loss of the crops (B, 3, S, S)."""
    anchors, positives = quarters(images)
    negatives = torch.cat([part_of(positive[None], rng) for positive in positives])
    features, counts = network(torch.cat([anchors, positives, negatives]))
    (a, p, n), (_, more, fewer) = features.float().chunk(3), counts.float().chunk(3)
    return scale_triplet_loss(a, p, n) + count_ranking_loss(more, fewer)


def quarters(images: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and positives (2 B, 3, S / 2, S / 2): the quarters of each crop and their right and left neighbours."""
    half = images.shape[2] // 2
    top, bottom = images[:, :, :half], images[:, :, half:]
    return (
        torch.cat([top[..., :half], bottom[..., half:]]),
        torch.cat([top[..., half:], bottom[..., :half]]),
    )


def part_of(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A random square of (1, 3, S, S), enlarged to its size."""
    side = image.shape[2]
    part = max(8, round(side * float(rng.choice(PARTS))))
    y, x = rng.integers(0, side - part + 1, 2)
    square = image[:, :, y : y + part, x : x + part]
    return F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)
