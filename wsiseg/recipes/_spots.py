"""From a detector's probability to points, and from points to nuclei of one size, which points can be held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from wsiseg.pseudo_labels import distance_to_points, voronoi_cells


def spots(
    probability: NDArray[np.floating], *, threshold: float, min_area: int, max_area: int
) -> NDArray[np.float64]:
    """(N, 2) centroids, (y, x), of the connected pieces of a probability (H, W) above a threshold.

    Pieces of fewer than `min_area` or `max_area` and more pixels are none: noise, and background that was never taught.

    Source: Qu et al. (2020), section III-A; the bounds on the area are their code's.

    Examples
    --------
    >>> spots(np.array([[0.0, 0.9, 0.9, 0.0, 0.9]]), threshold=0.5, min_area=2, max_area=9).tolist()
    [[0.5, 2.0]]
    """
    pieces = label_pieces(probability > threshold, background=0, connectivity=2)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = np.flatnonzero((sizes >= min_area) & (sizes < max_area))
    centres = ndimage.center_of_mass(np.ones(pieces.shape), pieces, kept)
    return np.array(centres, np.float64).reshape(-1, 2) + 0.5


def joined(points: NDArray[np.float64], found: NDArray[np.float64], *, apart: float) -> NDArray[np.float64]:
    """The points (N, 2), and those found (M, 2) that lie farther than `apart` from all of them.

    >>> joined(np.array([[5.0, 5.0]]), np.array([[5.0, 7.0], [5.0, 30.0]]), apart=11).tolist()
    [[5.0, 5.0], [5.0, 30.0]]
    """
    away = np.linalg.norm(found[:, None] - points[None], axis=2) > apart
    return np.concatenate([points, found[away.all(1)]])


def discs(points: NDArray[np.floating], shape: tuple[int, int], *, radius: float) -> NDArray[np.int32]:
    """(H, W) int32: what lies less than `radius` from each point and nearer to no other, numbered as they are.

    A true point in a disc is a detection in the circle about the true point, the papers' measure.
    """
    near = distance_to_points(points, shape) < radius
    return np.where(near, voronoi_cells(points, shape), 0).astype(np.int32)
