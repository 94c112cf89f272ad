"""A U-Net on a ResNet encoder, for semantic proposals (SPN) and instance embeddings (IEN).

The encoder's parameters carry the names and shapes of torchvision's ResNets, so that their
checkpoints load as they are; `width` scales all channels for small, fast models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 32
"""Sides of an input are multiples of this."""

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016)."""

    expansion = 1
    """Output channels, of those of the block's convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1, the last to four times the channels, and a shortcut.

    The 3 x 3 convolution strides, as torchvision's does; He et al. (2016) have the first one do it.
    """

    expansion = 4
    """Output channels, of those of the block's convolutions."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


class UpBlock(nn.Module):
    """Enlarge twofold, join the encoder's map of that size, convolve.

    Batch norm stands before the ReLU (the published up-block has it after), so that it folds into the
    convolution at inference.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(B, inputs, H, W) and (B, skip, 2 H, 2 W) to (B, outputs, 2 H, 2 W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        out: Tensor = self.dropout(F.relu(self.bn(self.conv(x)), inplace=True))
        return out


class ResNetEncoder(nn.Module):
    """(B, 3, H, W) float in 0..1 to five maps, of strides 2, 4, 8, 16 and 32; H and W are multiples of 32.

    `channels` are those of the five maps.
    """

    def __init__(self, *, depth: int = 18, width: float = 1.0) -> None:
        super().__init__()
        block, blocks = (BasicBlock if depth < 50 else Bottleneck), BLOCKS[depth]
        w = [int(64 * width * scale) for scale in (1, 2, 4, 8)]
        c = self.channels = [w[0], *(block.expansion * n for n in w)]
        self.conv1 = nn.Conv2d(3, c[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(c[0])
        self.layer1 = _layer(block, c[0], w[0], blocks[0], 1)
        self.layer2 = _layer(block, c[1], w[1], blocks[1], 2)
        self.layer3 = _layer(block, c[2], w[2], blocks[2], 2)
        self.layer4 = _layer(block, c[3], w[3], blocks[3], 2)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The five maps."""
        x0 = F.relu(self.bn1(self.conv1(x - 0.5)), inplace=True)
        x1 = self.layer1(F.max_pool2d(x0, 3, 2, padding=1))
        x2 = self.layer2(x1)
        x3 = self.layer3(x2)
        return [x0, x1, x2, x3, self.layer4(x3)]


class ResUNet(ResNetEncoder):
    """(B, 3 + coordinates, H, W) float in 0..1 to (B, outputs, H, W); H and W are multiples of 32.

    Parameters
    ----------
    outputs
        Channels of the last 1 x 1 convolution.
    depth
        18, 34, 50 or 101: which ResNet the encoder is; the decoder has the channels of 18 in every case.
    width
        1 is the published size; 0.5 halves every number of channels (3.6 M parameters at depth 18).
    coordinates
        Further input channels, which a 1 x 1 convolution mixes down to 3 before the encoder
        (CoordConv, Liu et al. 2018); 0 leaves that convolution out.
    dropout
        Share of channels left out in the up-blocks while training.
    """

    def __init__(
        self,
        outputs: int,
        *,
        depth: int = 18,
        width: float = 1.0,
        coordinates: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(depth=depth, width=width)
        c = self.channels
        self.mix = nn.Conv2d(3 + coordinates, 3, 1) if coordinates else nn.Identity()
        d = [int(64 * width * scale) for scale in (1, 1, 2, 4)]
        self.up4 = UpBlock(c[4], c[3], d[3], dropout)
        self.up3 = UpBlock(d[3], c[2], d[2], dropout)
        self.up2 = UpBlock(d[2], c[1], d[1], dropout)
        self.up1 = UpBlock(d[1], c[0], d[0], dropout)
        self.up0 = UpBlock(d[0], 0, max(16, d[0] // 2), dropout=0.0)
        self.head = nn.Conv2d(max(16, d[0] // 2), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x0, x1, x2, x3, x4 = self.encode(self.mix(x))
        y = self.up2(self.up3(self.up4(x4, x3), x2), x1)  # (B, d1, H/4, W/4)
        out: Tensor = self.head(self.up0(self.up1(y, x0), None))
        return out


def _layer(
    block: type[BasicBlock | Bottleneck], inputs: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    first, outputs = block(inputs, channels, stride), channels * block.expansion
    return nn.Sequential(first, *(block(outputs, channels, 1) for _ in range(blocks - 1)))


def load_encoder(network: nn.Module, weights: dict[str, Tensor]) -> Sequence[str]:
    """Load a torchvision-shaped ResNet checkpoint into the encoder; returns the names that were taken.

    Raises
    ------
    ValueError
        If no tensor of `weights` has the name and shape of one of the encoder's.
    """
    own = network.state_dict()
    fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
    if not fitting:
        raise ValueError("no tensor of the checkpoint fits the encoder; depth and width must agree")
    network.load_state_dict(fitting, strict=False)
    return sorted(fitting)
