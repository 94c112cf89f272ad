"""The inside of a nucleus, its boundary and the background, from masks of a share of the tissue (Xie et al. 2020).

It is the task on which they measure what self-supervised pre-training is worth: a U-Net tells three classes of pixels
apart, and each piece of the first, grown into the second, is a nucleus. With `init = "self-supervised"` the encoder has
learned from all tissue, labelled or not, which nuclei are larger and where more of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.instances import instances
from wsiseg.maps import Maps
from wsiseg.networks.forward import run
from wsiseg.networks.pretrained import with_encoder
from wsiseg.networks.resunet import ResUNet
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS, UNLABELLED
from wsiseg.recipes import _self_supervised
from wsiseg.recipes._components import components as components  # a recipe's own, for `Model.components`
from wsiseg.recipes._whole import whole_nuclei
from wsiseg.samples import Sample
from wsiseg.stages import Networks, OptionRanges, Options, Schedule, Stage

LABELS_NEEDED = "masks on a share of the tissue"
GIVES = "pieces of inside grown into their boundary"
SOURCE = "Xie et al. (2020)"
CLASS_NAMES = ("Nucleus",)
CLASS_COLORS = ((200, 60, 60),)
OPTIONS: OptionRanges = {}

BOUNDARY = NUCLEUS + 1
"""What targets hold on the boundary of a nucleus; `NUCLEUS` is its inside."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe; the defaults are the small model's.

    depth, width, dropout         of the network (`ResUNet`)
    share, patch, draw            of the training images, cut into squares of `patch` pixels, that have labels, and the
                                  seed they are drawn with: 0.1, 0.3, 0.5, 0.7 and 1 are the columns of Table 1
    border                        pixels from the edge of a nucleus inwards that are its boundary
    threshold                     probability, of inside and boundary together, from which a pixel is a nucleus's
    boundary_weight               times its probability that the boundary counts where it is held against the inside: it is
                                  thin, and a network is seldom sure of it; 1: the likelier of the two, as published
    least_inside                  square pixels; a smaller piece of inside begins no nucleus
    min_area                      smallest nucleus, square pixels
    init                          where the encoder starts: "random", "self-supervised" (on all training images,
                                  whatever share of them has labels), or the path or URL of a ResNet checkpoint
    encoder, unet                 schedules: of the self-supervised start, where there is one, and of the network
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    depth: int = 18
    width: float = 0.5
    dropout: float = 0.1
    share: float = 1.0
    patch: int = 250
    draw: int = 0
    border: int = 2
    threshold: float = 0.5
    boundary_weight: float = 4.0
    least_inside: int = 8
    min_area: int = 30
    init: str = "random"
    encoder: Schedule = field(default_factory=lambda: Schedule(crops=8_000, batch=8, size=384))
    unet: Schedule = field(default_factory=Schedule)


def networks(settings: Settings) -> dict[str, Callable[[], nn.Module]]:
    """What builds the network: channels for background, inside and boundary."""
    return {"unet": partial(ResUNet, 3, depth=settings.depth, width=settings.width, dropout=settings.dropout)}


def stages(settings: Settings) -> tuple[Stage, ...]:
    """The self-supervised start, where it is asked for, and the network."""
    build = networks(settings)["unet"]
    first: tuple[Stage, ...] = ()
    if settings.init == "self-supervised":
        first = (_self_supervised.stage(settings.depth, settings.width, settings.encoder, given_by="unet"),)
    elif settings.init != "random":
        build = partial(with_encoder, build, settings.init)
    unet = Stage(
        "unet",
        build,
        partial(targets, settings),
        loss,
        settings.unet,
        BACKGROUND,
        init=first[0].name if first else None,
        nuclei=partial(whole_nuclei, maps, group, settings),
    )
    return *first, unet


def targets(settings: Settings, sample: Sample, _: Options, __: Networks) -> NDArray[np.int8]:
    """(1, H, W) int8: background, inside or boundary where a pixel's square has labels, else 0.

    Raises
    ------
    DataError
        If the sample has no masks.
    """
    if sample.labels is None:
        raise DataError(f"{sample.name}: has no labels; this recipe learns from masks of all nuclei")
    inside = sample.labels > 0
    for axis in (0, 1):
        # As far as `border` along an axis must lie the same nucleus; beyond the image it goes on.
        reach = 2 * settings.border + 1
        least = ndimage.minimum_filter1d(sample.labels, reach, axis=axis, mode="nearest")
        inside &= least == ndimage.maximum_filter1d(sample.labels, reach, axis=axis, mode="nearest")
    labels = np.where(inside, NUCLEUS, np.where(sample.labels > 0, BOUNDARY, BACKGROUND)).astype(np.int8)
    known = labelled_squares(sample, share=settings.share, patch=settings.patch, draw=settings.draw)
    if sample.roi is not None:
        known &= sample.roi
    return np.where(known, labels, UNLABELLED).astype(np.int8)[None]


def labelled_squares(sample: Sample, *, share: float, patch: int, draw: int) -> NDArray[np.bool_]:
    """(H, W) where an image has labels: in a share of its squares, at least one, the same whatever the other images are."""
    height, width = sample.image.shape[:2]
    rows, columns = -(-height // patch), -(-width // patch)
    rng = np.random.default_rng([draw, crc32(sample.name.encode())])
    count = max(1, round(share * rows * columns))
    chosen = np.zeros(rows * columns, bool)
    # In one order for every share: the labels of a smaller one are among those of a larger one.
    chosen[rng.permutation(rows * columns)[:count]] = True
    squares = chosen.reshape(rows, columns).repeat(patch, axis=0).repeat(patch, axis=1)
    return squares[:height, :width]


def loss(network: nn.Module, images: Tensor, labels: Tensor, _: np.random.Generator) -> Tensor:
    """Cross-entropy of the three classes over the labelled pixels of a batch; 0 where there is none."""
    classes = labels[:, 0].long() - BACKGROUND
    each = F.cross_entropy(network(images).float(), classes.clamp(min=0), reduction="none")
    known = classes >= 0
    total: Tensor = (each * known).sum() / known.sum().clamp(min=1)
    return total


def maps(
    trained: Mapping[str, nn.Module], _: Settings, images: Tensor, __: Sequence[tuple[int, int]]
) -> list[Maps]:
    """Maps of each of `images` (B, 3, H, W), wherever they lie in the plan."""
    seen = run(trained["unet"], images).softmax(1).cpu().numpy()
    return [Maps(1 - prob[:1], boundary=prob[2]) for prob in seen]


def group(
    tile: Maps,
    settings: Settings,
    _: Rect,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int32], None]:
    """(H, W) int32 nuclei 1..n without gaps: pieces of inside, grown into the boundary; there is no embedding."""
    assert tile.boundary is not None
    nucleus = tile.prob[0] >= (settings.threshold if threshold is None else threshold)
    inside = tile.prob[0] - tile.boundary
    pieces = label_pieces(
        nucleus & (inside > settings.boundary_weight * tile.boundary), background=0, connectivity=1
    )
    small = np.bincount(pieces.ravel()) < settings.least_inside
    small[0] = False
    pieces[small[pieces]] = 0
    grown = watershed(-inside, pieces, mask=nucleus).astype(np.int32)
    return instances(grown, min_area=settings.min_area if min_area is None else min_area), None
