"""The fully supervised bound of SPN + IEN: the same networks, losses and grouping, taught by masks of all nuclei.

It is the row "Fully" of Liu et al. (2022), Table 1: what points leave to be won.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS
from wsiseg.recipes._components import components
from wsiseg.recipes.spn_ien import (
    CLASS_COLORS,
    CLASS_NAMES,
    Settings,
    ambiguous,
    group,
    maps,
    networks,
    taught_by,
)
from wsiseg.samples import Sample
from wsiseg.stages import Networks, OptionRanges, Options, Stage

__all__ = [
    "CLASS_COLORS",
    "CLASS_NAMES",
    "CORRECTED_BY",
    "GIVES",
    "LABELS_NEEDED",
    "OPTIONS",
    "SOURCE",
    "Settings",
    "ambiguous",
    "components",
    "group",
    "maps",
    "networks",
    "stages",
]

LABELS_NEEDED = "masks of all nuclei"
GIVES = "what spn_ien gives: the bound that points are held against"
SOURCE = "Liu et al. (2022)"
CORRECTED_BY = "spn_ien"
"""Not every nucleus of a slide has a mask after somebody corrected some: the recipe of the same networks that needs none."""
OPTIONS: OptionRanges = {}


def stages(settings: Settings) -> tuple[Stage, ...]:
    """SPN on nucleus against background, then IEN on the true instances."""
    return taught_by(settings, semantic_targets, partial(instance_targets, settings))


def semantic_targets(sample: Sample, _: Options, __: Networks) -> NDArray[np.int8]:
    """(1, H, W) int8: nucleus or background at every pixel inside the region of interest."""
    labels = np.where(_masks(sample) > 0, NUCLEUS, BACKGROUND).astype(np.int8)
    return (labels if sample.roi is None else labels * sample.roi)[None]


def instance_targets(settings: Settings, sample: Sample, _: Options, __: Networks) -> NDArray[np.int32]:
    """(1, H, W) int32: the nuclei, and in `input` and `patch` form the background as one more."""
    labels = _masks(sample).copy()
    if settings.coordinates != "output":
        labels[labels == 0] = labels.max(initial=0) + 1
    return (labels if sample.roi is None else labels * sample.roi)[None]


def _masks(sample: Sample) -> NDArray[np.int32]:
    if sample.labels is None:
        raise DataError(f"{sample.name}: has no labels; this recipe learns from masks of all nuclei")
    return sample.labels
