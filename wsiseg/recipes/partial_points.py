"""Nuclei from a share of the points, a tenth of them, say (Qu et al. 2020).

A detector learns from the clicked nuclei and from the ring of background around each; what it is sure of elsewhere
becomes background in three further rounds. The nuclei that it finds then are points enough: a segmentation network learns
from their Voronoi and cluster labels, and is refined by the pairwise term of a dense CRF. Connected pieces are nuclei.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.dense_crf import pairwise_energy
from wsiseg.losses import masked_squared_error, partial_cross_entropy
from wsiseg.maps import Maps
from wsiseg.networks.forward import run
from wsiseg.networks.pretrained import with_encoder
from wsiseg.networks.resunet import ResUNet
from wsiseg.pseudo_labels import BACKGROUND
from wsiseg.recipes import _self_supervised
from wsiseg.recipes._components import components as components
from wsiseg.recipes._components import group as group
from wsiseg.recipes._gaussian_masks import (
    Mask,
    clicked,
    extended_mask,
    from_levels,
    to_levels,
    with_background,
)
from wsiseg.recipes._point_targets import OPTIONS as OPTIONS
from wsiseg.recipes._point_targets import semantic_probability, semantic_targets
from wsiseg.recipes._spots import discs, joined, spots
from wsiseg.samples import Sample
from wsiseg.stages import Networks, Options, Schedule, Stage

LABELS_NEEDED = "points on a share of the nuclei"
GIVES = "connected components, and detected points"
SOURCE = "Qu et al. (2020)"
CLASS_NAMES = ("Nucleus",)
CLASS_COLORS = ((200, 60, 60),)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe; the defaults are the paper's for MultiOrgan.

    depth, width, dropout         of all networks (`ResUNet`)
    share, draw                   of each image's points that training may see, and the seed they are drawn with
    mask                          "extended": nothing is taught far from points (Eq. 1); "plain": background is
    inner, outer, sigma           r1, r2 and bandwidth of the Gaussian masks, pixels
    rounds                        of self-training with background propagation
    fresh                         whether a round starts where the first did, as the authors' do, or where the round
                                  before it ended
    background, false_nuclei      probabilities below and, in large pieces, above which a round finds background
    spot                          probability above which a piece is a detected nucleus
    min_spot, max_spot            square pixels; smaller and larger pieces are none
    alpha                         Eq. 6: share of the Voronoi labels in the loss; the cluster labels have the rest
    refined                       whether the pairwise term refines the network
    beta, sigma_pq, sigma_rgb     Eq. 10 and 8: its weight, and its bandwidths in pixels and in 0..1
    threshold, min_area           of a nucleus at inference
    init                          where the encoders start: "random", "self-supervised" (Xie et al. 2020, on the
                                  training images), or the path or URL of a ResNet checkpoint
    encoder                       schedule of the self-supervised start, where there is one
    detector                      of the first training and of each round
    segmentation, refinement      of the segmentation network without and with the pairwise term
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    depth: int = 18
    width: float = 0.5
    dropout: float = 0.1
    share: float = 0.1
    draw: int = 0
    mask: Literal["extended", "plain"] = "extended"
    inner: float = 11.0
    outer: float = 22.0
    sigma: float = 2.75
    rounds: int = 3
    fresh: bool = True
    background: float = 0.1
    false_nuclei: float = 0.7
    spot: float = 0.35
    min_spot: int = 12
    max_spot: int = 200
    alpha: float = 0.5
    refined: bool = True
    beta: float = 0.005
    sigma_pq: float = 9.0
    sigma_rgb: float = 0.1
    threshold: float = 0.5
    min_area: int = 20
    init: str = "random"
    encoder: Schedule = field(default_factory=lambda: Schedule(crops=8_000, batch=8, size=384))
    detector: Schedule = field(default_factory=Schedule)
    segmentation: Schedule = field(default_factory=Schedule)
    # Its rate is a refinement's already: where a trained model is the start, it is what learns from new points.
    refinement: Schedule = field(default_factory=lambda: Schedule(learning_rate=1e-4, tuning=1.0))


def networks(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """What builds each network, by name: one shape for both."""
    build = partial(ResUNet, 1, depth=settings.depth, width=settings.width, dropout=settings.dropout)
    return {"detector": build, "segmentation": build}


def stages(settings: Settings) -> tuple[Stage, ...]:
    """The detector and its rounds, then the segmentation network and its refinement.

    Where training starts from a trained model, that model's detector is the teacher of the last round, and its
    segmentation network is refined.
    """
    first = _first(settings)
    start = first[0].name if first else None
    build: Callable[[], nn.Module] = networks(settings)["detector"]
    if settings.init not in ("random", "self-supervised"):
        build = partial(with_encoder, build, settings.init)
    return (
        *first,
        *_detectors(settings, build, start),
        *_segmentations(settings, build, start),
    )


def _first(settings: Settings) -> tuple[Stage, ...]:
    """The self-supervised start, where it is asked for."""
    if settings.init != "self-supervised":
        return ()
    encoder = _self_supervised.stage(settings.depth, settings.width, settings.encoder)
    return (replace(encoder, given_by="detector"),)


def _detectors(settings: Settings, build: Callable[[], nn.Module], start: str | None) -> tuple[Stage, ...]:
    """The first training and the rounds: `detector_0`, `detector_1`, ..., the last one `detector`."""
    names = [*(f"detector_{number}" for number in range(settings.rounds)), "detector"]
    rounds = []
    for number, name in enumerate(names):
        before = names[number - 1] if number else None
        rounds.append(
            Stage(
                name,
                build,
                partial(detector_targets, settings, before),
                detector_loss,
                settings.detector,
                BACKGROUND,
                init=start if settings.fresh or before is None else before,
                given_by=None if name == names[-1] else "detector",
                nuclei=partial(detected_discs, settings, name),
            )
        )
    return tuple(rounds)


def _segmentations(
    settings: Settings, build: Callable[[], nn.Module], start: str | None
) -> tuple[Stage, ...]:
    """Eq. 6, then Eq. 10 from where that ended: `segmentation` is the name of the last one."""

    def stage(name: str, beta: float, schedule: Schedule, init: str | None, given_by: str | None) -> Stage:
        loss = partial(segmentation_loss, settings, beta)
        nuclei = partial(found_nuclei, settings, name)
        targets = partial(segmentation_targets, settings)
        return Stage(name, build, targets, loss, schedule, BACKGROUND, init, given_by, nuclei)

    if not settings.refined:
        return (stage("segmentation", 0.0, settings.segmentation, start, None),)
    return (
        stage("segmentation_0", 0.0, settings.segmentation, start, "segmentation"),
        stage("segmentation", settings.beta, settings.refinement, "segmentation_0", None),
    )


def detector_targets(
    settings: Settings, before: str | None, sample: Sample, _: Options, trained: Networks
) -> NDArray[np.int16]:
    """(1, H, W) int16 levels of the mask of Eq. 1, or of Eq. 3 after the detector of the name `before`."""
    mask = gaussian_mask(settings, sample)
    if before is not None:
        mask = with_background(
            mask,
            semantic_probability(trained[before], sample.image),
            low=settings.background,
            high=settings.false_nuclei,
            large=math.pi * settings.inner**2,
        )
    levels = to_levels(mask)
    return (levels if sample.roi is None else levels * sample.roi)[None]


def gaussian_mask(settings: Settings, sample: Sample) -> Mask:
    """(H, W) mask of the clicked share of a sample's points, extended or plain."""
    points = clicked(sample, settings.share, settings.draw)
    shape = (sample.image.shape[0], sample.image.shape[1])
    mask = extended_mask(points, shape, inner=settings.inner, outer=settings.outer, sigma=settings.sigma)
    return mask if settings.mask == "extended" else np.maximum(mask, 0.0)


def detector_loss(network: nn.Module, images: Tensor, targets: Tensor, _: np.random.Generator) -> Tensor:
    """Eq. 2 on the known pixels of a batch."""
    prob = network(images)[:, 0].float().sigmoid()
    return masked_squared_error(prob, from_levels(targets[:, 0]))


def detect(
    settings: Settings, trained: Networks, image: NDArray[np.uint8], *, name: str = "detector"
) -> NDArray[np.float64]:
    """(N, 2) nuclei, (y, x), that a detector finds in a whole image (H, W, 3)."""
    return spots(
        semantic_probability(trained[name], image),
        threshold=settings.spot,
        min_area=settings.min_spot,
        max_area=settings.max_spot,
    )


def detected_discs(
    settings: Settings, name: str, trained: Networks, image: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """(H, W) int32 discs of a nucleus's size around what a detector finds."""
    points = detect(settings, trained, image, name=name)
    return discs(points, (image.shape[0], image.shape[1]), radius=settings.inner)


def segmentation_targets(
    settings: Settings, sample: Sample, options: Options, trained: Networks
) -> NDArray[np.int8]:
    """(2, H, W) int8: cluster and Voronoi labels of the clicked nuclei and of the detected ones away from them."""
    found = detect(settings, trained, sample.image)
    if sample.roi is not None:
        y, x = np.floor(found).astype(np.int64).T
        found = found[sample.roi[y, x]]
    points = joined(clicked(sample, settings.share, settings.draw), found, apart=settings.inner)
    return semantic_targets(replace(sample, points=points), options, trained)


def segmentation_loss(
    settings: Settings,
    beta: float,
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    _: np.random.Generator,
) -> Tensor:
    """Eq. 6, with `beta` times the pairwise term of Eq. 10."""
    logits = network(images)[:, 0].float()
    cluster, voronoi = (partial_cross_entropy(logits, labels) for labels in targets.unbind(1))
    loss = settings.alpha * voronoi + (1 - settings.alpha) * cluster
    if not beta:
        return loss
    prob = logits.sigmoid()
    return loss + beta * pairwise_energy(
        prob, images, sigma_pq=settings.sigma_pq, sigma_rgb=settings.sigma_rgb
    )


def found_nuclei(
    settings: Settings, name: str, trained: Networks, image: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """(H, W) int32 nuclei of a whole image by the segmentation network of this name."""
    prob = semantic_probability(trained[name], image)
    return components(Maps(prob[None]), threshold=settings.threshold, min_area=settings.min_area)


def maps(
    trained: Mapping[str, nn.Module], _: Settings, images: Tensor, __: Sequence[tuple[int, int]]
) -> list[Maps]:
    """Maps of each of `images` (B, 3, H, W), wherever they lie in the plan."""
    return [Maps(prob) for prob in run(trained["segmentation"], images).sigmoid().cpu().numpy()]
