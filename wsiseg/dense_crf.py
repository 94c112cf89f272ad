"""The pairwise term of a dense CRF as a loss (Qu et al. 2020, section IV-C), by filtering on a bilateral grid.

Every pixel is joined to every other one, the closer they are and the more alike in colour the stronger: N^2 pairs.
Their sums are Gaussian filters in the five dimensions of position and colour: values are shared out to the nodes of a
grid there, blurred along one axis after another, and read back. Sharing out and reading back are each other's
transpose and the blur is symmetric, so the filter is symmetric, as the pairs are, and the gradient is exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

STEPS = (1.0, 1.0, 0.5, 0.5, 0.5)
"""Nodes' distances along y, x and the axes of colour, in bandwidths. Rows and columns of pixels meet the grid at all
phases, and its errors cancel; an even colour meets it at one alone."""

PHASE = 0.5 - math.sqrt(1 / 12)
"""Where the least features lie between their nodes: a point there is spread as much as points are on average, so that
the sums over an even colour are right."""


def pairwise_energy(prob: Tensor, images: Tensor, *, sigma_pq: float, sigma_rgb: float) -> Tensor:
    """`sum_ij y_i (1 - y_j) W_ij / N` with a Gaussian affinity W of position and colour; the mean over images.

    Parameters
    ----------
    prob : (B, H, W)         y, the probability of a nucleus; gradients flow to it alone
    images : (B, 3, H, W)    in 0..1
    sigma_pq                 bandwidth of position, pixels
    sigma_rgb                bandwidth of colour, in 0..1

    Returns
    -------
    scalar float32    within about 2 % of the sum over pairs on stained tissue; its gradient is its own, exactly

    Source: Qu et al. (2020), Eq. 8-10; the pairs of a pixel with itself count, as they are written, and the division by
    the N pixels is their code's.
    """
    features = torch.stack([pixel_features(image, sigma_pq, sigma_rgb) for image in images])
    energy: Tensor = _Energy.apply(prob.float(), features)
    return energy


def pixel_features(image: Tensor, sigma_pq: float, sigma_rgb: float) -> Tensor:
    """(H * W, 5) position and colour of the pixels of (3, H, W), in bandwidths.

    Colours are turned to their principal axes, which changes no distance: those of stained tissue lie near a plane,
    and a grid along it has far fewer nodes.
    """
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([y, x], dim=-1).reshape(-1, 2).to(image)
    colour = image.flatten(1).T.float()
    with torch.autocast(image.device.type, enabled=False):
        axes = torch.linalg.eigh(colour.T.cov() if len(colour) > 1 else colour.new_zeros(3, 3))[1]
        colour = colour @ axes
    return torch.cat([position / sigma_pq, colour / sigma_rgb], dim=1)


class _Energy(torch.autograd.Function):
    """Prob (B, H, W) and features (B, N, 5) to the energy; its derivative by y is `W 1 - 2 W y`."""

    @staticmethod
    def forward(ctx: Any, prob: Tensor, features: Tensor) -> Tensor:
        """Scalar."""
        y = prob.flatten(1)
        both = torch.stack([torch.ones_like(y), y], dim=1)  # (B, 2, N)
        sums = torch.stack([gaussian_filter(v, f, STEPS) for v, f in zip(both, features, strict=True)])
        everything, nuclei = sums.unbind(1)
        ctx.save_for_backward((everything - 2 * nuclei).view_as(prob) / y.numel())
        return (y * (everything - nuclei)).mean()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        """(B, H, W)."""
        (slope,) = ctx.saved_tensors
        return gradient[0] * slope, None


def gaussian_filter(values: Tensor, features: Tensor, steps: tuple[float, ...]) -> Tensor:
    """(C, N): about `sum_j exp(-|f_i - f_j|^2 / 2) values_j` at each point i.

    Parameters
    ----------
    values : (C, N)
    features : (N, D)    in bandwidths
    steps                distances of the grid's nodes along each of the D axes, in bandwidths
    """
    at = (features - features.amin(0)) / features.new_tensor(steps) + PHASE
    shape = [int(last) + 2 for last in at.amax(0).tolist()]
    node, share = _corners(at, shape)
    grid = values.new_zeros(len(values), math.prod(shape))
    for channel, value in zip(grid, values, strict=True):
        channel.index_add_(0, node.flatten(), (share * value).flatten())
    grid = _blurred(grid.reshape(-1, *shape), steps).flatten(1)
    return torch.stack([(channel[node] * share).sum(0) for channel in grid])


def _corners(at: Tensor, shape: list[int]) -> tuple[Tensor, Tensor]:
    """(2^D, N) nodes around each point (N, D) of a grid, and what share of the point each has (multilinear)."""
    below = at.floor()
    beyond = at - below
    node, share = at.new_zeros(1, len(at), dtype=torch.int64), at.new_ones(1, len(at))
    for axis, size in enumerate(shape):
        first, part = below[:, axis].long() + node * size, beyond[:, axis]
        node, share = torch.cat([first, first + 1]), torch.cat([share * (1 - part), share * part])
    return node, share


def _blurred(grid: Tensor, steps: tuple[float, ...]) -> Tensor:
    """(C, n_1, .., n_D) blurred along each axis."""
    with torch.autocast(grid.device.type, enabled=False):
        for step in steps:
            # The first axis after the channels is summed over, and comes back as the last.
            grid = torch.tensordot(grid, _kernel(grid.shape[1], step).to(grid), dims=([1], [0]))
    return grid


def _kernel(nodes: int, step: float) -> Tensor:
    """(n, n) float64 Gaussian between the nodes of one axis.

    Sharing out and reading back spread a point by a sixth of a step squared each, on average over the phases; the
    blur is narrower by as much. Its sum is that of the Gaussian that is asked for.
    """
    variance = 1 / step**2 - 1 / 3
    weights = torch.exp(-0.5 * torch.arange(-20.0, 21, dtype=torch.float64).square() / variance)
    apart = torch.arange(nodes)[:, None] - torch.arange(nodes)
    gaussian = torch.exp(-0.5 * apart.double().square() / variance)
    return gaussian * (math.sqrt(2 * math.pi) / step / weights.sum())
