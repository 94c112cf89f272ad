"""Multi-task learning for detection and segmentation from points (Chamanzar and Nie 2020).

One network gives one map of nuclei, taught by three encodings of the points in turn: Voronoi cells keep nuclei apart,
k-means inside the cells outlines them, the repel code raises a peak in the middle of each. Peaks are what is counted.

Points may carry classes, such as positive and negative for a stain: then the network gives a map a class as well, and
each nucleus is of the class that is likeliest in it. The paper names this as its extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.instances import instances, likely
from wsiseg.losses import partial_cross_entropy
from wsiseg.maps import Maps
from wsiseg.networks.forward import run
from wsiseg.networks.pretrained import with_encoder
from wsiseg.networks.resunet import ResUNet
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS, voronoi_cells, voronoi_labels
from wsiseg.recipes import _self_supervised
from wsiseg.recipes._components import components as components  # a recipe's own, for `Model.components`
from wsiseg.recipes._encodings import local_cluster_labels, repel_code
from wsiseg.recipes._whole import whole_nuclei
from wsiseg.samples import Sample
from wsiseg.stages import Loss, Networks, OptionRanges, Options, Schedule, Stage

LABELS_NEEDED = "points, with classes if nuclei have some"
GIVES = "nuclei divided among peaks, their classes, and detected points"
SOURCE = "Chamanzar and Nie (2020)"
CLASS_NAMES = ("Nucleus",)
CLASS_COLORS = ((200, 60, 60),)
OPTIONS: OptionRanges = {"colour_weight": (0.0, 10.0), "max_distance": (1.0, 500.0)}

LEVELS = 1000
"""Steps of the repel code as a target: targets are whole numbers."""

CLUSTER, VORONOI, REPEL, CLASS = range(4)
"""Which map of the targets is which."""

Task = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, 1 or 1 + K, H, W), targets (B, 3 or 4, H, W)) -> scalar."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe; the defaults are the small model's.

    depth, width, dropout         of the network (`ResUNet`)
    class_names, class_colors     what nuclei are told apart as; points must be of these classes, or of none
    in_turn                       whether a step takes one of the losses, as published, or their mean: what they held
                                  their scheduler against
    alpha, reach                  of the repel code (Liang et al. 2019, Eq. 4), the second in pixels; published as r
    threshold                     probability from which a pixel is a nucleus's
    apart                         pixels between the middles of two nuclei at least
    smoothing                     pixels, standard deviation of what the map is smoothed by before peaks are sought:
                                  half precision leaves plateaus without one peak
    split                         whether the foreground is divided among the peaks by a watershed; else its connected
                                  components are the nuclei, as published
    min_area                      smallest nucleus, square pixels
    least_score                   mean foreground probability below which a nucleus is left out
    init                          where the encoder starts: "random", "self-supervised" (Xie et al. 2020, on the
                                  training images), or the path or URL of a ResNet checkpoint
    encoder, unet                 schedules: of the self-supervised start, where there is one, and of the network
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    depth: int = 18
    width: float = 0.5
    dropout: float = 0.1
    class_names: tuple[str, ...] = CLASS_NAMES
    class_colors: tuple[tuple[int, int, int], ...] = CLASS_COLORS
    in_turn: bool = True
    alpha: float = 0.05
    reach: float = 70.0
    threshold: float = 0.5
    apart: float = 10.0
    smoothing: float = 1.0
    split: bool = True
    min_area: int = 30
    least_score: float = 0.0
    init: str = "random"
    encoder: Schedule = field(default_factory=lambda: Schedule(crops=8_000, batch=8, size=384))
    unet: Schedule = field(default_factory=lambda: Schedule(optimiser="ranger"))


def networks(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """What builds the network: a channel for nuclei and, where there are several, one a class.

    The published network has a second channel for background; the softmax over both is the sigmoid of their
    difference, so one says as much.
    """
    outputs = 1 + len(settings.class_names) * several(settings)
    build = partial(ResUNet, outputs, depth=settings.depth, width=settings.width, dropout=settings.dropout)
    return {"unet": build}


def several(settings: Settings) -> bool:
    """Whether nuclei are told apart."""
    return len(settings.class_names) > 1


def stages(settings: Settings) -> tuple[Stage, ...]:
    """One network, by three losses in turn, and by a fourth where there are classes."""
    build = networks(settings)["unet"]
    first: tuple[Stage, ...] = ()
    if settings.init == "self-supervised":
        start = _self_supervised.stage(settings.depth, settings.width, settings.encoder)
        first = (replace(start, given_by="unet"),)
    elif settings.init != "random":
        build = partial(with_encoder, build, settings.init)
    return (
        *first,
        Stage(
            "unet",
            build,
            partial(targets, settings),
            scheduler(settings),
            settings.unet,
            BACKGROUND,
            init=first[0].name if first else None,
            nuclei=partial(whole_nuclei, maps, group, settings),
        ),
    )


def scheduler(settings: Settings) -> tuple[Loss, ...]:
    """The losses in the order in which they take turns (Eq. 4), or the one that is all of them."""
    tasks = voronoi_loss, repel_loss, cluster_loss, *((class_loss,) * several(settings))
    turns = tuple((task,) for task in tasks) if settings.in_turn else (tasks,)
    return tuple(partial(mean_loss, together) for together in turns)


def mean_loss(
    tasks: Sequence[Task], network: nn.Module, images: Tensor, labels: Tensor, _: np.random.Generator
) -> Tensor:
    """The mean of the losses of some tasks, of one look at the images (B, 3, H, W)."""
    logits = network(images).float()
    return torch.stack([task(logits, labels) for task in tasks]).mean()


def targets(settings: Settings, sample: Sample, options: Options, _: Networks) -> NDArray[np.int16]:
    """(3 or 4, H, W) int16: cluster and Voronoi labels, filtered repel and, where there are several, classes.

    Cluster and Voronoi labels hold 2 nucleus and 1 background, the filtered repel 1 + `LEVELS` times the code, the
    classes 2 + the number of the class; 0 is not labelled. Where every nucleus is clicked and no point is, all is
    background.
    """
    shape = (sample.image.shape[0], sample.image.shape[1])
    clusters = local_cluster_labels(
        sample.image,
        sample.points,
        colour_weight=options.get("colour_weight", 0.7),
        max_distance=options.get("max_distance", 20.0),
        roi=sample.roi,
    )
    points = len(sample.points)
    voronoi = voronoi_labels(sample.points, shape) if points else np.full(shape, BACKGROUND, np.int8)
    repel = filtered_repel(sample.points, clusters, alpha=settings.alpha, reach=settings.reach)
    encoded: list[NDArray[np.integer]] = [clusters, voronoi, repel]
    if several(settings):
        nucleus = (clusters == NUCLEUS) | (voronoi == NUCLEUS)
        encoded.append(np.where(nucleus, class_labels(sample, settings.class_names), 0))
    labels = np.stack(encoded).astype(np.int16)
    return labels if sample.roi is None else labels * sample.roi


def filtered_repel(
    points: NDArray[np.floating], clusters: NDArray[np.int8], *, alpha: float, reach: float
) -> NDArray[np.int16]:
    """(H, W) int16: 1 + `LEVELS` times the repel code, which is 0 outside the nuclei of the cluster labels.

    Source: section 2.3 (III).
    """
    shape = (clusters.shape[0], clusters.shape[1])
    code = repel_code(points, shape, alpha=alpha, reach=reach, where=clusters == NUCLEUS)
    return (1 + np.rint(LEVELS * code)).astype(np.int16)


def class_labels(sample: Sample, names: Sequence[str]) -> NDArray[np.int16]:
    """(H, W) int16: 2 + the number of the nearest point's class, 0 where that point has none.

    Raises
    ------
    DataError
        If a point is of a class that is not among `names`.
    """
    number = {"": 0, **{name: 2 + i for i, name in enumerate(names)}}
    unknown = [name for name in sample.classes if name not in number]
    if unknown:
        raise DataError(f"{sample.name}: a point of class {unknown[0]!r}; class_names are {', '.join(names)}")
    of_point = [0, *(number[name] for name in sample.classes or [""] * len(sample.points))]
    shape = (sample.image.shape[0], sample.image.shape[1])
    return np.array(of_point, np.int16)[voronoi_cells(sample.points, shape)]


def cluster_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 1: cross-entropy with the cluster labels."""
    return partial_cross_entropy(logits[:, 0], labels[:, CLUSTER])


def voronoi_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 2: cross-entropy at the points and on the edges of their cells."""
    return partial_cross_entropy(logits[:, 0], labels[:, VORONOI])


def repel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 3: squared difference of the probability and the filtered repel, over what is labelled."""
    probability, known = logits[:, 0].sigmoid(), labels[:, REPEL] > 0
    apart = (probability - (labels[:, REPEL] - 1) / LEVELS).square()
    return (apart * known).sum() / known.sum().clamp(min=1)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the classes, over the nuclei whose class is known."""
    classes = labels[:, CLASS] - 2
    each = F.cross_entropy(logits[:, 1:], classes.clamp(min=0), reduction="none")
    known = classes >= 0
    return (each * known).sum() / known.sum().clamp(min=1)


def probabilities(logits: Tensor) -> Tensor:
    """(B, K, H, W) probability of a nucleus of each class, from (B, 1 or 1 + K, H, W); their sum is a nucleus's."""
    nucleus = logits[:, :1].sigmoid()
    return nucleus if logits.shape[1] == 1 else nucleus * logits[:, 1:].softmax(1)


def maps(
    trained: Mapping[str, nn.Module], settings: Settings, images: Tensor, origins: Sequence[tuple[int, int]]
) -> list[Maps]:
    """Maps of each of `images` (B, 3, H, W); where they lie does not matter."""
    return [Maps(prob) for prob in probabilities(run(trained["unet"], images)).cpu().numpy()]


def group(
    tile: Maps,
    settings: Settings,
    frame: Rect,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int32], None]:
    """(H, W) int32 nuclei 1..n without gaps: the foreground, divided among its peaks; there is no embedding."""
    nucleus, cut = tile.prob.sum(0), settings.threshold if threshold is None else threshold
    clusters = (nucleus >= cut).astype(np.int32)
    if settings.split:
        smooth = smoothed(nucleus, settings.smoothing)
        marks = np.zeros(nucleus.shape, np.int32)
        at = peaks(smooth, settings.apart, cut)
        marks[tuple(at.T)] = np.arange(1, len(at) + 1)
        clusters = watershed(-smooth, marks, mask=clusters > 0).astype(np.int32)
    labels = instances(clusters, min_area=settings.min_area if min_area is None else min_area)
    return likely(labels, nucleus, settings.least_score), None


def detections(
    tile: Maps, settings: Settings, *, threshold: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Peaks (N, 2), (y, x) in pixels of the tile, highest first, and the class of each (N,).

    Source: section 2.5, where they are at least 2.5 um apart.
    """
    smooth = np.stack([smoothed(prob, settings.smoothing) for prob in tile.prob])
    at = peaks(smooth.sum(0), settings.apart, settings.threshold if threshold is None else threshold)
    classes: NDArray[np.int64] = smooth[:, at[:, 0], at[:, 1]].argmax(axis=0)
    return at.astype(np.float64) + 0.5, classes


def smoothed(prob: NDArray[np.floating], sigma: float) -> NDArray[np.floating]:
    """(H, W) `prob` after a Gaussian of `sigma` pixels; as it is, where that is 0."""
    return ndimage.gaussian_filter(prob, sigma) if sigma else prob


def peaks(prob: NDArray[np.floating], apart: float, least: float) -> NDArray[np.int64]:
    """(N, 2) pixels that are the highest within `apart` of them and above `least`, highest first.

    Of equal ones that near each other the first in reading order is taken.
    """
    found: NDArray[np.int64] = peak_local_max(
        prob, min_distance=max(1, round(apart)), threshold_abs=least, exclude_border=False
    )
    return found
