"""Losses for point supervision: cross-entropy on the labelled pixels, edges, Gaussian masks, and the discriminative loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def partial_cross_entropy(
    logits: Tensor, labels: Tensor, *, background: float = 1.0, nucleus: float = 1.0
) -> Tensor:
    """Cross-entropy over the labelled pixels alone, their weighted mean.

    Parameters
    ----------
    logits : (B, H, W)    of a nucleus
    labels : (B, H, W)    2 nucleus, 1 background, 0 not labelled
    background, nucleus
        Weight of a pixel of each label. The sum is divided by that of the weights, as torch's own weighted
        cross-entropy does.

    Returns
    -------
    scalar; 0 where nothing is labelled

    Source: Qu et al. (2020), Eq. 5; Liu et al. (2022), section 2.2; with weights, Yoo et al. (2019), section 4.2.
    """
    weight = background * (labels == 1) + nucleus * (labels == 2)
    each = F.binary_cross_entropy_with_logits(logits, (labels == 2).to(logits.dtype), reduction="none")
    total: Tensor = (each * weight).sum() / weight.sum().clamp(min=1e-6)
    return total


def sobel(maps: Tensor) -> Tensor:
    """Sobel derivatives of maps (B, H, W) along y and along x, their border pixels repeated outwards.

    The filter is 1, 2, 1 across and -1, 0, 1 along the direction: a step of 1 gives 4.

    Returns
    -------
    (B, 2, H, W)

    Examples
    --------
    >>> sobel(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]))[0, :, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 4.0, 4.0, 0.0]]
    """
    around = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = around[:, :, :-2] + 2 * around[:, :, 1:-1] + around[:, :, 2:]  # (B, H + 2, W)
    columns = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]  # (B, H, W + 2)
    return torch.stack([rows[:, 2:] - rows[:, :-2], columns[:, :, 2:] - columns[:, :, :-2]], dim=1)


def edge_loss(probability: Tensor, edges: Tensor) -> Tensor:
    """How far the Sobel derivatives of a probability (B, H, W) are from edges (B, 2, H, W). Scalar.

    Source: Yoo et al. (2019), second term of Eq. 1 and 2; |.| is the mean over pixels and directions.
    """
    return (sobel(probability) - edges).abs().mean()


def masked_squared_error(prob: Tensor, mask: Tensor, *, weight: float = 10.0) -> Tensor:
    """Squared error over the known pixels, those of nuclei weighted, averaged over them.

    Parameters
    ----------
    prob : (B, H, W)    of a nucleus
    mask : (B, H, W)    what it should be: 0 background, above 0 nucleus, below 0 not known
    weight
        Of a nucleus's pixel; background's is 1.

    Returns
    -------
    scalar; 0 where nothing is known

    Source: Qu et al. (2020), Eq. 2.
    """
    known = mask >= 0
    each = (prob - mask).square() * torch.where(mask > 0, weight, 1.0)
    return (each * known).sum() / known.sum().clamp(min=1)


def discriminative_loss(
    embedding: Tensor,
    instances: Tensor,
    *,
    image: Tensor | None = None,
    images: int = 1,
    background: Tensor | None = None,
    alpha: float = 1.0,
    gamma: float = 0.001,
    delta_intra: float = 0.5,
    delta_inter: float = 3.0,
    regularised_from: int = 0,
    per_pair: bool = True,
) -> Tensor:
    """Pull the pixels of an instance together and its mean away from the others' of its image.

    Parameters
    ----------
    embedding : (N, D) float32    of the pixels that lie in instances, of all images of a batch
    instances : (N,) int64        number of each pixel's instance in its image, gaps allowed
    image : (N,) int64            which image each pixel is of, 0 to `images` - 1; all are of one where None
    images
        Images of the batch; the loss is their mean, and one without instances counts as 0.
    background : (N,) bool
        Pixels of the background instances, weighted by `alpha` (Eq. 1); None where there is none.
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
    if not len(embedding):
        return embedding.sum() * 0
    most = int(instances.max()) + 1
    key = instances if image is None else image * most + instances
    # Counting is several times faster than sorting, which `unique` would do.
    present, index, sizes = _numbered(key, most * images)
    owner = present // most  # (C,) the image of each instance
    each = torch.bincount(owner, minlength=images)[owner]
    share = 1.0 / (each * images)  # of an instance in the mean over images of means over instances
    means = embedding.new_zeros(len(present), embedding.shape[1]).index_add(0, index, embedding)
    means = means / sizes[:, None]

    weight = torch.ones_like(share)
    if background is not None:
        weight[index[background]] = alpha
    pull = F.relu(_length(embedding - means.index_select(0, index)) - delta_intra) ** 2
    intra = (pull * (weight * share / sizes)[index]).sum()

    inter = _push(means, owner, weight, images, alpha=alpha, apart=delta_inter)
    inter = (inter * share / ((each - 1).clamp(min=1) if per_pair else 1)).sum()

    length = (_length(means[:, regularised_from:]) * share).sum()
    return intra + inter + gamma * length


def _push(means: Tensor, owner: Tensor, weight: Tensor, images: int, *, alpha: float, apart: float) -> Tensor:
    """(C,) how far each instance's mean (C, D) is to be pushed from the others of its image.

    The means lie image by image in one padded block, so that only pairs of one image are looked at.
    """
    first = torch.cumsum(torch.bincount(owner, minlength=images), 0) - torch.bincount(owner, minlength=images)
    place = torch.arange(len(means), device=means.device) - first[owner]
    most = int(place.max()) + 1
    there = means.new_zeros(images, most, dtype=torch.bool)
    there[owner, place] = True
    block = means.new_zeros(images, most, means.shape[1]).index_put((owner, place), means)
    weights = weight.new_zeros(images, most).index_put((owner, place), weight)
    # A pair with the background counts alpha once for each order, as 2 alpha over unordered pairs does.
    one, other = weights[:, :, None], weights[:, None, :]
    pair = torch.minimum(one, other) if alpha <= 1 else one * other
    pair = pair * (there[:, :, None] & there[:, None, :]) * (1 - torch.eye(most, device=means.device))
    push = F.relu(apart - _length(block[:, :, None] - block[:, None, :])) ** 2 * pair
    return push.sum(2)[owner, place]


def _numbered(key: Tensor, below: int) -> tuple[Tensor, Tensor, Tensor]:
    """The different values of `key` (N,) in order, (C,); the place of each among them, (N,); their counts, (C,)."""
    counts = torch.bincount(key, minlength=below)
    present = counts.nonzero()[:, 0]
    place = counts.gt(0).cumsum(0) - 1
    return present, place[key], counts[present]


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length along the last axis, with a gradient of 0 at the origin."""
    return (vectors.square().sum(-1) + 1e-12).sqrt()


def scale_triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    """Scale-wise triplet loss of features (B, D): crops of one scale near each other, of another far. Scalar.

    Source: Xie et al. (2020), Eq. 1; the mean over triplets instead of their sum.
    """
    near = (anchor - positive).square().sum(1)
    far = (anchor - negative).square().sum(1)
    return (near - far + margin).clamp(min=0).mean()


def count_ranking_loss(more: Tensor, fewer: Tensor, margin: float = 1.0) -> Tensor:
    """Count ranking loss of scores (B,): of two crops the one with more nuclei is to score higher. Scalar.

    Source: Xie et al. (2020), Eq. 2; the mean over pairs instead of their sum.
    """
    return (fewer - more + margin).clamp(min=0).mean()
