"""Three ways to tell an instance embedding where it is: `output`, `input` and `patch`.

`output` adds the slide position to what the network gives, `input` and `patch` show the network
coordinate channels (CoordConv): sine and cosine of the slide position, or, as published, the position
inside the patch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Coordinates = Literal["output", "input", "patch"]

CHANNELS: dict[str, int] = {"output": 0, "input": 4, "patch": 2}
"""Coordinate channels that the network is shown in each form."""


def coordinate_channels(
    form: Coordinates,
    shape: tuple[int, int],
    origin: tuple[float, float],
    *,
    period: float = 512.0,
) -> Tensor:
    """Coordinate channels for one image.

    Parameters
    ----------
    shape : (H, W) of the image
    origin : (y, x) of its first pixel in the slide, pixels; `patch` does not look at it
    period : pixels, of the sine waves of `input`; larger than a training crop

    Returns
    -------
    (C, H, W) float32    C is `CHANNELS[form]`; `output` has none
    """
    if form == "output":
        return torch.zeros(0, *shape)
    if form == "patch":
        y, x = (torch.linspace(-1, 1, n) for n in shape)
        return torch.stack(torch.meshgrid(y, x, indexing="ij"))
    # The remainder is taken in float64: at 200,000 pixels a float32 angle is off by a hundredth of a pixel.
    angles = [
        (2 * math.pi / period) * ((torch.arange(n, dtype=torch.float64) + start) % period)
        for n, start in zip(shape, origin, strict=True)
    ]
    y, x = torch.meshgrid(*angles, indexing="ij")
    return torch.stack([y.sin(), y.cos(), x.sin(), x.cos()]).float()


def bounded_offsets(raw: Tensor, radius: float) -> Tensor:
    """First two channels of (B, D, ...) squeezed to -radius..radius; the others as they are."""
    return torch.cat([radius * torch.tanh(raw[:, :2] / radius), raw[:, 2:]], dim=1)


def bounded_halves(raw: Tensor, radius: float) -> Tensor:
    """`bounded_offsets` as float16, without another float32 of all channels."""
    halves = raw.half()
    halves[:, :2] = radius * torch.tanh(raw[:, :2] / radius)
    return halves


def add_anchor(offsets: Tensor, position: Tensor, scale: float) -> Tensor:
    """Embeddings `(s y + o_y, s x + o_x, e_3 ..)` (N, D) of pixels at `position` (N, 2), as (y, x).

    Positions should be near 0: far from it they cost float32 its precision.
    """
    return torch.cat([offsets[:, :2] + scale * position, offsets[:, 2:]], dim=1)
