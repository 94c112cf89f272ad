"""What a detector is taught where only a share of the nuclei is clicked (Qu et al. 2020, section III).

A mask (H, W) holds how near a pixel is to a clicked point, 1 at the point, 0 where it is background, and -1 where nothing
is known. Targets are whole numbers, 0 where they teach nothing: a mask travels as levels.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as label_pieces
from torch import Tensor

from wsiseg.pseudo_labels import BACKGROUND, UNLABELLED, distance_to_points
from wsiseg.samples import Sample

Mask = NDArray[np.float64]

UNKNOWN = -1.0

LEVELS = 10_000
"""Steps of a mask between 0 and 1; so fine that the Gaussian is above 0 to its rim (0.0003 with the paper's numbers)."""


def drawn(points: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A share of the points (N, 2), drawn without return, in their order; at least one where there is one.

    >>> len(drawn(np.zeros((40, 2)), 0.1, np.random.default_rng(0)))
    4
    """
    count = min(len(points), max(1, round(share * len(points))))
    return points[np.sort(rng.choice(len(points), count, replace=False))]


def clicked(sample: Sample, share: float, seed: int) -> NDArray[np.float64]:
    """The points of a sample that training may see: the same in every round, whatever the other images are."""
    return drawn(sample.points, share, np.random.default_rng([seed, crc32(sample.name.encode())]))


def extended_mask(
    points: NDArray[np.floating], shape: tuple[int, int], *, inner: float, outer: float, sigma: float
) -> Mask:
    """A Gaussian around each point out to `inner` pixels, background from there to `outer`, unknown beyond.

    Source: Qu et al. (2020), Eq. 1; what lies at `inner` is background, at `outer` unknown.
    """
    distance = distance_to_points(points, shape)
    mask = np.where(distance < outer, 0.0, UNKNOWN)
    near = distance < inner
    mask[near] = np.exp(-0.5 * (distance[near] / sigma) ** 2)
    return mask


def with_background(
    mask: Mask, probability: NDArray[np.floating], *, low: float, high: float, large: float
) -> Mask:
    """The mask, with background where it knew nothing and a trained detector says so.

    That is where the probability (H, W) is below `low`, and in connected pieces above `high` of more than `large` pixels:
    background that nothing ever taught, for they are larger than nuclei.

    Source: Qu et al. (2020), Eq. 3 and section III-B.
    """
    pieces = label_pieces(probability > high, background=0, connectivity=2)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    background = (probability < low) | (sizes > large)[pieces]
    return np.where((mask == UNKNOWN) & background, 0.0, mask)


def to_levels(mask: Mask) -> NDArray[np.int16]:
    """(H, W) int16: 0 unknown, 1 background, more up to 1 + `LEVELS` at a point.

    >>> to_levels(np.array([[-1.0, 0.0, 1e-9, 1.0]])).tolist()
    [[0, 1, 2, 10001]]
    """
    levels = BACKGROUND + np.round(mask * LEVELS)
    levels[mask > 0] = np.maximum(levels[mask > 0], BACKGROUND + 1)
    levels[mask == UNKNOWN] = UNLABELLED
    return levels.astype(np.int16)


def from_levels(levels: Tensor) -> Tensor:
    """The mask (B, H, W) float32 again: -1 unknown, else 0 to 1."""
    mask = (levels - BACKGROUND).float() / LEVELS
    return mask.masked_fill(levels == UNLABELLED, UNKNOWN)
