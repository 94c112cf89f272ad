"""A feature pyramid on a ResNet encoder, with one map of the input's size on top."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.networks.resunet import ResNetEncoder

CHANNELS = 256
"""Of each level of the pyramid, at width 1 (Lin et al. 2017); a level gives half of them to the sum."""


class FPN(ResNetEncoder):
    """(B, 3, H, W) float in 0..1 to (B, outputs, H, W); H and W are multiples of 32.

    The pyramid is that of Lin et al. (2017): 1 x 1 convolutions of the encoder's maps of strides 4 to 32, and from
    the top down each added to the next. It was made for boxes; for a map, each level is convolved, enlarged to
    stride 4 and added to the others, as in Kirillov et al. (2019), "Panoptic feature pyramid networks".

    Parameters
    ----------
    outputs
        Channels of the last 1 x 1 convolution.
    depth
        18, 34 or 50: which ResNet the encoder is.
    width
        1 is the published size; 0.5 halves every number of channels.
    """

    def __init__(self, outputs: int, *, depth: int = 18, width: float = 1.0) -> None:
        super().__init__(depth=depth, width=width)
        pyramid = int(CHANNELS * width)
        self.laterals = nn.ModuleList(nn.Conv2d(c, pyramid, 1) for c in self.channels[1:])
        self.levels = nn.ModuleList(_level(pyramid, pyramid // 2) for _ in self.channels[1:])
        self.head = nn.Conv2d(pyramid // 2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pyramid = self.pyramid(x)
        size = pyramid[0].shape[2:]
        enlarged = [
            F.interpolate(level(p), size=size, mode="bilinear", align_corners=False)
            for level, p in zip(self.levels, pyramid, strict=True)
        ]
        out: Tensor = self.head(torch.stack(enlarged).sum(0))  # (B, outputs, H / 4, W / 4)
        return F.interpolate(out, scale_factor=4.0, mode="bilinear", align_corners=False)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The levels, of strides 4, 8, 16 and 32."""
        maps = [lateral(m) for lateral, m in zip(self.laterals, self.encode(x)[1:], strict=True)]
        for fine, coarse in ((2, 3), (1, 2), (0, 1)):
            maps[fine] = maps[fine] + F.interpolate(maps[coarse], scale_factor=2.0, mode="nearest")
        return maps


def _level(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
