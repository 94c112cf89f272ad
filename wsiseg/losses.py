"""Losses for point supervision: cross-entropy on the labelled pixels, and the discriminative loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def partial_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the labelled pixels alone, averaged over them.

    Parameters
    ----------
    logits : (B, H, W)    of a nucleus
    labels : (B, H, W)    2 nucleus, 1 background, 0 not labelled

    Returns
    -------
    scalar; 0 where nothing is labelled

    Source: Qu et al. (2020), Eq. 5; Liu et al. (2022), section 2.2.
    """
    known = labels > 0
    each = F.binary_cross_entropy_with_logits(logits, (labels == 2).to(logits.dtype), reduction="none")
    total: Tensor = (each * known).sum() / known.sum().clamp(min=1)
    return total


def discriminative_loss(
    embedding: Tensor,
    instances: Tensor,
    *,
    background: int | None = None,
    alpha: float = 1.0,
    gamma: float = 0.001,
    delta_intra: float = 0.5,
    delta_inter: float = 3.0,
    regularised_from: int = 0,
    per_pair: bool = True,
) -> Tensor:
    """Pull the pixels of an instance together and its mean away from the others'.

    Parameters
    ----------
    embedding : (D, H, W) float32
    instances : (H, W) int    1.. instances, gaps allowed; 0 is not looked at
    background
        Number of the background instance, weighted by `alpha` (Eq. 1); None where there is none.
    gamma
        Weight of the mean embeddings' length.
    regularised_from
        First channel whose length is held down: anchored channels (`output` form) hold a position, which
        must not be drawn to the origin.
    per_pair
        The inter-class term is divided by C (C - 1), as published; else by C: with anchored embeddings
        nearly all pairs are far apart from the start and would only thin out the few that touch.

    Returns
    -------
    scalar; 0 where there is no instance. Both hinges are squared (De Brabandere et al. 2017).

    Source: Liu et al. (2022), Eq. 1.
    """
    flat, numbers = embedding.flatten(1).T, instances.flatten()  # (P, D), (P,)
    inside = numbers > 0
    if not bool(inside.any()):
        return embedding.sum() * 0
    flat, (present, index) = flat[inside], numbers[inside].unique(return_inverse=True)
    count = len(present)
    sizes = torch.bincount(index, minlength=count).to(flat.dtype)
    means = flat.new_zeros(count, flat.shape[1]).index_add(0, index, flat) / sizes[:, None]

    weight = torch.ones_like(sizes)
    if background is not None:
        weight[present == background] = alpha
    pull = F.relu(_length(flat - means[index]) - delta_intra) ** 2
    intra = (pull * (weight / sizes)[index]).sum() / count

    # A pair with the background counts alpha once for each order, as 2 alpha over unordered pairs does.
    pair_weight = torch.minimum(weight[:, None], weight[None, :]) if alpha <= 1 else weight.outer(weight)
    apart = _length(means[:, None] - means[None, :])
    push = F.relu(delta_inter - apart) ** 2 * pair_weight
    push = push - torch.diag(torch.diag(push))
    inter = push.sum() / (count * max(1, count - 1) if per_pair else count)

    length = _length(means[:, regularised_from:]).mean()
    return intra + inter + gamma * length


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length along the last axis, with a gradient of 0 at the origin."""
    return (vectors.square().sum(-1) + 1e-12).sqrt()
