"""A network too small to know what a nucleus is: it sees edges, whatever they are of."""

from __future__ import annotations

from torch import Tensor, nn


class EdgeNetwork(nn.Module):
    """(B, 3, H, W) float in 0..1 to edges (B, 2, H, W) along y and x.

    Parameters
    ----------
    layers
        3 x 3 convolutions, each but the last followed by batch norm and ReLU.
    filters
        Channels between them.

    Source: Yoo et al. (2019), section 4.2; the size of the convolutions is not printed there.
    """

    def __init__(self, *, layers: int = 4, filters: int = 64) -> None:
        super().__init__()
        inputs = (3, *[filters] * (layers - 2))
        self.layers = nn.Sequential(*(_layer(n, filters) for n in inputs))
        self.last = nn.Conv2d(filters, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.last(self.layers(x - 0.5))
        return out


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
