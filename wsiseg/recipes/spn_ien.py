"""SPN + IEN: weakly supervised nuclei segmentation via instance learning (Liu et al. 2022).

A semantic proposal network learns nucleus against background from Voronoi and cluster labels; an instance
encoding network learns embeddings whose clusters are nuclei. `coordinates` says how embeddings know where
they are (`wsiseg.networks.coordinates`); `output`, the default, anchors them in the slide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsiseg.errors import ConfigError
from wsiseg.maps import Maps
from wsiseg.networks.coordinates import CHANNELS, Coordinates
from wsiseg.networks.pretrained import with_encoder
from wsiseg.networks.resunet import ResUNet
from wsiseg.pseudo_labels import BACKGROUND
from wsiseg.recipes import _self_supervised
from wsiseg.recipes._components import components
from wsiseg.recipes._point_targets import OPTIONS as OPTIONS
from wsiseg.recipes._point_targets import (
    instance_targets,
    refreshed_targets,
    semantic_probability,
    semantic_targets,
)
from wsiseg.recipes._spn_ien_losses import both_losses, both_targets, instance_loss, semantic_loss
from wsiseg.recipes._spn_ien_nuclei import ambiguous as ambiguous
from wsiseg.recipes._spn_ien_nuclei import group as group
from wsiseg.recipes._spn_ien_nuclei import maps as maps
from wsiseg.recipes._whole import whole_nuclei
from wsiseg.stages import Networks, Schedule, Stage, Targets

LABELS_NEEDED = "points"
GIVES = "instances by embeddings that meet across tiles"
SOURCE = "Liu et al. (2022)"
CLASS_NAMES = ("Nucleus",)
CLASS_COLORS = ((200, 60, 60),)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe; the defaults are the small model's.

    depth, width, dropout         of both networks (`ResUNet`)
    coordinates, dim              form and channels D of the embedding
    shared                        one network of two heads gives both, in half the time; SPN is its teacher only
    scale, radius                 `output`: embedding units per pixel, and bound of the offset
    period                        `input`: pixels, of the coordinate waves
    foreground, background        T_fg and T_bg of the instance pseudo-labels
    refresh                       probability at which a first SPN's foreground becomes the label of a
                                  second one (`refreshed_targets`); None: one SPN, as published
    rim                           probability that SPN is taught to have where a nucleus ends; T_0 where outlines
                                  teach a model further that draws nuclei there
    alpha, gamma, delta_intra, delta_inter     Eq. 1
    threshold, bandwidth          T_0 and the mean-shift's at inference
    min_area                      smallest nucleus, square pixels
    least_score                   mean foreground probability below which a nucleus is left out
    least_density                 optical density (natural logarithm) of a nucleus's mean red below which it is left
                                  out: a speck on glass; 0: none is
    settle                        steps (pixels) inwards and outwards within which outlines settle on edges of the
                                  image (`wsiseg.boundaries`); (0, 0): they stay where T_0 has them, as published
    least_edge                    mean strength of edges on an outline (255: a density of 0.5 a pixel) below which it is
                                  narrowed before it settles (`wsiseg.halos`), if surroundings are even; 0: none is
    smooth                        sigma (pixels) of the blur that makes settled outlines smooth
    init                          where the encoders start: "random", "self-supervised" (Xie et al. 2020, on
                                  the training images), or the path or URL of a ResNet checkpoint
    encoder, spn, spn_again, ien  schedules: of the self-supervised start and the second SPN, where there are
                                  such, and of the two networks
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    depth: int = 18
    width: float = 0.5
    dropout: float = 0.1
    coordinates: Coordinates = "output"
    dim: int = 16
    shared: bool = False
    scale: float = 0.15
    radius: float = 6.0
    period: float = 512.0
    foreground: float = 0.5
    background: float = 0.3
    refresh: float | None = None
    rim: float = 0.5
    alpha: float = 1.0
    gamma: float = 0.001
    delta_intra: float = 0.5
    delta_inter: float = 3.0
    threshold: float = 0.5
    bandwidth: float = 1.5
    min_area: int = 30
    least_score: float = 0.0
    least_density: float = 0.15
    settle: tuple[int, int] = (1, 3)
    least_edge: float = 40.0
    smooth: float = 2.0
    init: str = "random"
    encoder: Schedule = field(default_factory=lambda: Schedule(crops=8_000, batch=8, size=384))
    spn: Schedule = field(default_factory=Schedule)
    spn_again: Schedule = field(default_factory=Schedule)
    ien: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.shared and self.coordinates != "output":
            raise ValueError(
                "shared networks have coordinates 'output'; the other forms see their place beside the image"
            )


def corrected(settings: Settings, schedule: Schedule) -> Settings:
    """To train a model further by corrected nuclei: SPN alone, which keeps its threshold.

    After some hundred crops IEN's nuclei are wider than before and fall apart, whatever they taught; SPN learns in as
    many where nuclei are and how far they go.

    Raises
    ------
    ConfigError
        If there is no SPN apart from IEN.
    """
    if settings.shared:
        raise ConfigError("a model whose networks are shared cannot be corrected; take one whose are not")
    untaught = replace(schedule, crops=0)
    return replace(settings, rim=settings.threshold, refresh=None, init="random", spn=schedule, ien=untaught)


def networks(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """What builds each network, by name."""
    build = _builds(settings)
    return {"ien": build["ien"]} if settings.shared else build


def _builds(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """The networks, and where they are shared the one that only teaches."""
    build = partial(ResUNet, depth=settings.depth, width=settings.width, dropout=settings.dropout)
    outputs = settings.dim + settings.shared
    return {
        "spn": partial(build, 1),
        "ien": partial(build, outputs, coordinates=CHANNELS[settings.coordinates]),
    }


def stages(settings: Settings) -> tuple[Stage, ...]:
    """SPN on semantic pseudo-labels, then IEN on the instances that SPN and the points give.

    With `refresh` there are two SPN: the first is only the teacher of the second. Where training starts from a
    trained model, that model's SPN is the teacher.
    """
    background = None if settings.coordinates == "output" else settings.background
    instances = partial(instance_targets, settings.foreground, background)
    *before, spn, ien = taught_by(settings, semantic_targets, instances)
    if settings.refresh is None:
        return *before, spn, ien
    refreshed = partial(
        refreshed_targets,
        settings.refresh,
        settle=settings.settle,
        smooth=settings.smooth,
        least_edge=settings.least_edge,
    )
    if settings.shared:
        taught = partial(refreshed, teacher="spn")
        ien = replace(ien, targets=partial(both_targets, taught, instances))
    again = replace(spn, targets=refreshed, schedule=settings.spn_again, init="spn_first")
    first = replace(
        spn, name="spn_first", given_by="spn", nuclei=partial(proposed_nuclei, settings, "spn_first")
    )
    return *before, first, again, ien


def taught_by(settings: Settings, semantic: Targets, instances: Targets) -> tuple[Stage, ...]:
    """SPN, then IEN, whatever they are taught by.

    The anchored IEN starts from SPN's weights. The other forms see coordinate channels, which SPN never
    saw, and start where SPN started.
    """
    build: Mapping[str, Callable[[], nn.Module]] = _builds(settings)
    first: tuple[Stage, ...] = ()
    if settings.init == "self-supervised":
        first = (_self_supervised.stage(settings.depth, settings.width, settings.encoder),)
    elif settings.init != "random":
        build = {name: partial(with_encoder, one, settings.init) for name, one in build.items()}
    start = first[0].name if first else None
    after = "spn" if settings.coordinates == "output" else start
    proposals = Stage(
        "spn",
        build["spn"],
        semantic,
        partial(semantic_loss, settings),
        settings.spn,
        BACKGROUND,
        init=start,
        nuclei=partial(proposed_nuclei, settings, "spn"),
    )
    embeddings = Stage(
        "ien",
        build["ien"],
        instances,
        partial(instance_loss, settings),
        settings.ien,
        init=after,
        nuclei=partial(whole_nuclei, maps, group, settings),
    )
    if settings.shared:
        both = partial(both_targets, semantic, instances)
        embeddings = replace(
            embeddings, targets=both, loss=partial(both_losses, settings), background=BACKGROUND
        )
    return *first, proposals, embeddings


def proposed_nuclei(
    settings: Settings, name: str, trained: Networks, image: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """(H, W) int32 connected components of what the SPN of this name takes for foreground."""
    return components(
        Maps(semantic_probability(trained[name], image)[None]), threshold=0.5, min_area=settings.min_area
    )
