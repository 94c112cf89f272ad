"""What SPN and IEN are taught with, apart or as two heads of one network (Liu et al. 2022, section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.losses import discriminative_loss, partial_cross_entropy
from wsiseg.networks.coordinates import (
    add_anchor,
    bounded_offsets,
    coordinate_channels,
)
from wsiseg.samples import Sample
from wsiseg.stages import Networks, Options, Targets

if TYPE_CHECKING:
    from wsiseg.recipes.spn_ien import Settings


def semantic_loss(
    settings: Settings, network: nn.Module, images: Tensor, targets: Tensor, _: np.random.Generator
) -> Tensor:
    """Cross-entropy on the labelled pixels of each label map, averaged over the maps."""
    return proposal_loss(settings, network(images)[:, 0], targets)


def proposal_loss(settings: Settings, logits: Tensor, targets: Tensor) -> Tensor:
    """The same of logits (B, H, W) and label maps (B, T, H, W)."""
    logits = logits.float() - math.log(settings.rim / (1 - settings.rim))
    return torch.stack([partial_cross_entropy(logits, labels) for labels in targets.unbind(1)]).mean()


def instance_loss(
    settings: Settings, network: nn.Module, images: Tensor, targets: Tensor, rng: np.random.Generator
) -> Tensor:
    """Eq. 1, averaged over the crops of a batch. Only what lies in instances is anchored and looked at."""
    raw = embed(settings, network, images, rng.uniform(0, settings.period, (len(images), 2)))
    return embedding_loss(settings, raw, targets[:, 0])


def embedding_loss(settings: Settings, raw: Tensor, marks: Tensor) -> Tensor:
    """The same of what the network gave (B, D, H, W) and the instances (B, H, W)."""
    image, y, x = marks.nonzero(as_tuple=True)
    inside = (image * marks.shape[1] + y) * marks.shape[2] + x
    rows = raw.permute(0, 2, 3, 1).reshape(-1, raw.shape[1]).index_select(0, inside).float()
    background = None
    if settings.coordinates == "output":
        rows = add_anchor(bounded_offsets(rows, settings.radius), torch.stack([y, x], dim=1), settings.scale)
    else:
        background = marks.flatten()[inside] == marks.amax(dim=(1, 2))[image]
    return discriminative_loss(
        rows,
        marks.flatten()[inside],
        image=image,
        images=len(marks),
        background=background,
        alpha=settings.alpha,
        gamma=settings.gamma,
        delta_intra=settings.delta_intra,
        delta_inter=settings.delta_inter,
        regularised_from=2 if settings.coordinates == "output" else 0,
        per_pair=settings.coordinates != "output",
    )


def both_losses(
    settings: Settings, network: nn.Module, images: Tensor, targets: Tensor, _: np.random.Generator
) -> Tensor:
    """The losses of both heads, of the probability and of the embedding, added."""
    outputs = network(images)
    numbers = (targets[:, -1] - 1).clamp(min=0)
    return proposal_loss(settings, outputs[:, 0], targets[:, :-1]) + embedding_loss(
        settings, outputs[:, 1:], numbers
    )


def both_targets(
    semantic: Targets, instances: Targets, sample: Sample, options: Options, trained: Networks
) -> NDArray[np.int32]:
    """(T + 1, H, W) int32: the label maps, and the instances from 2 on, where `BACKGROUND` is none as well."""
    numbers = instances(sample, options, trained).astype(np.int32)
    return np.concatenate([semantic(sample, options, trained), np.where(numbers > 0, numbers + 1, 0)])


def embed(
    settings: Settings, network: Callable[[Tensor], Tensor], images: Tensor, origins: NDArray[np.floating]
) -> Tensor:
    """(B, D, H, W): what the network gives; in `output` form neither bounded nor anchored yet."""
    if settings.coordinates == "output":
        return network(images)
    shape = (images.shape[2], images.shape[3])
    channels = [
        coordinate_channels(settings.coordinates, shape, (float(y), float(x)), period=settings.period)
        for y, x in origins
    ]
    return network(torch.cat([images, torch.stack(channels).to(images)], dim=1))
