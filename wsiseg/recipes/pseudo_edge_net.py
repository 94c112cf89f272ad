"""PseudoEdgeNet: nuclei segmentation only with point annotations (Yoo et al. 2019).

A segmentation network f is taught that points are nuclei and the Voronoi boundaries between them are not; and that its
edges are those which a network g sees that is too small to know more than edges. An attention network h says where
g's edges matter. The three learn together; f alone is kept, and a nucleus is a connected component of what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.losses import edge_loss, partial_cross_entropy
from wsiseg.maps import Maps
from wsiseg.networks.edges import EdgeNetwork
from wsiseg.networks.forward import run
from wsiseg.networks.fpn import FPN
from wsiseg.networks.pretrained import with_encoder
from wsiseg.pseudo_labels import BACKGROUND, voronoi_labels
from wsiseg.recipes import _self_supervised
from wsiseg.recipes._components import components as components  # a recipe's own, for `Model.components`
from wsiseg.recipes._components import group as group
from wsiseg.recipes._whole import whole_nuclei
from wsiseg.samples import Sample
from wsiseg.stages import Networks, OptionRanges, Options, Schedule, Stage

LABELS_NEEDED = "points"
GIVES = "connected components with edges from the image"
SOURCE = "Yoo et al. (2019)"
CLASS_NAMES = ("Nucleus",)
CLASS_COLORS = ((200, 60, 60),)
OPTIONS: OptionRanges = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe; the defaults are the small model's.

    depth, width                  of f (`FPN`), and of g where it is large
    edges                         rows of Table 1: "none" is the baseline, f alone; "large" is g like f; "small" is
                                  g of few layers; "attended" is small g with h
    edge_layers, edge_filters     of small g (`EdgeNetwork`); at least 2 layers
    attention_depth               of h, an FPN of the same width as f
    edge_weight                   lambda of Eq. 1 and 2
    background_weight, nucleus_weight     of the labels in the cross-entropy
    radius                        of the disc around a point that is a nucleus, pixels; 0: the point's pixel
    threshold                     foreground probability at inference
    min_area                      smallest nucleus, square pixels
    init                          where f's encoder starts: "random", "self-supervised" (Xie et al. 2020, on the
                                  training images), or the path or URL of a ResNet checkpoint
    encoder, segmentation         schedules: of the self-supervised start, where there is one, and of f, g and h
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    depth: int = 18
    width: float = 0.5
    edges: Literal["none", "large", "small", "attended"] = "attended"
    edge_layers: int = 4
    edge_filters: int = 64
    attention_depth: int = 18
    edge_weight: float = 1.0
    background_weight: float = 0.1
    nucleus_weight: float = 1.0
    radius: int = 0
    threshold: float = 0.5
    min_area: int = 30
    init: str = "random"
    encoder: Schedule = field(default_factory=lambda: Schedule(crops=8_000, batch=8, size=384))
    segmentation: Schedule = field(default_factory=Schedule)


class PseudoEdgeNet(nn.Module):
    """f, g and h as they are taught together.

    (B, 3, H, W) in 0..1 to (B, H, W) logits of f and (B, 2, H, W) edges along y and x: g's, times h's attention
    where there is h (Eq. 2); None without g.
    """

    def __init__(
        self, segmentation: nn.Module, edges: nn.Module | None = None, attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.segmentation, self.edges, self.attention = segmentation, edges, attention

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the class."""
        logits = self.segmentation(x)[:, 0]
        if self.edges is None:
            return logits, None
        edges = self.edges(x)
        return logits, edges if self.attention is None else edges * self.attention(x).sigmoid()


def networks(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """What builds f, which is all that a model holds."""
    return {"segmentation": partial(FPN, 1, depth=settings.depth, width=settings.width)}


def together(settings: Settings) -> PseudoEdgeNet:
    """The networks that a row of Table 1 has: f, and its g and h, all fresh."""
    build: Callable[[], nn.Module] = networks(settings)["segmentation"]
    if settings.init not in ("random", "self-supervised"):
        build = partial(with_encoder, build, settings.init)
    segmentation = build()
    if settings.edges == "none":
        return PseudoEdgeNet(segmentation)
    if settings.edges == "large":
        return PseudoEdgeNet(segmentation, FPN(2, depth=settings.depth, width=settings.width))
    small = EdgeNetwork(layers=settings.edge_layers, filters=settings.edge_filters)
    if settings.edges == "small":
        return PseudoEdgeNet(segmentation, small)
    return PseudoEdgeNet(segmentation, small, FPN(1, depth=settings.attention_depth, width=settings.width))


def stages(settings: Settings) -> tuple[Stage, ...]:
    """One stage, in which f learns with g and h; before it the self-supervised start, if that is asked for."""
    first: tuple[Stage, ...] = ()
    if settings.init == "self-supervised":
        given = _self_supervised.stage(
            settings.depth, settings.width, settings.encoder, given_by="segmentation"
        )
        first = (given,)
    segmentation = Stage(
        "segmentation",
        partial(together, settings),
        partial(point_targets, settings.radius),
        partial(loss, settings),
        settings.segmentation,
        BACKGROUND,
        init=first[0].name if first else None,
        nuclei=partial(whole_nuclei, maps, group, settings),
        part="segmentation",
    )
    return *first, segmentation


def point_targets(radius: int, sample: Sample, _: Options, __: Networks) -> NDArray[np.int8]:
    """(1, H, W) int8: nucleus at the points, background on the boundaries of their Voronoi cells (section 3.1).

    Where every nucleus is clicked and no point is, all is background.
    """
    shape = (sample.image.shape[0], sample.image.shape[1])
    if len(sample.points):
        labels = voronoi_labels(sample.points, shape, radius=radius)
    else:
        labels = np.full(shape, BACKGROUND, np.int8)
    return (labels if sample.roi is None else labels * sample.roi)[None]


def loss(
    settings: Settings, network: nn.Module, images: Tensor, targets: Tensor, _: np.random.Generator
) -> Tensor:
    """Eq. 2; Eq. 1 without h, and without g its first term alone.

    The paper prints neither how the weighted cross-entropy is averaged nor the scale of the Sobel filter, which lambda
    hangs on. Divided by the number of labels instead of their weights, the cross-entropy is so small beside the
    edges that f learns to find nothing.
    """
    logits, edges = network(images)
    logits = logits.float()
    total = partial_cross_entropy(
        logits, targets[:, 0], background=settings.background_weight, nucleus=settings.nucleus_weight
    )
    if edges is None:
        return total
    return total + settings.edge_weight * edge_loss(logits.sigmoid(), edges.float())


def maps(
    trained: Mapping[str, nn.Module],
    settings: Settings,
    images: Tensor,
    origins: Sequence[tuple[int, int]],
) -> list[Maps]:
    """Probability of a nucleus at every pixel of each of `images` (B, 3, H, W), wherever in the plan they lie."""
    return [Maps(prob) for prob in run(trained["segmentation"], images).sigmoid().cpu().numpy()]
