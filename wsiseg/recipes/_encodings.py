"""What points are turned into for the multi-task recipe: k-means inside Voronoi cells, and the repel code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.morphology import disk

from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS, UNLABELLED, distance_to_points, voronoi_cells

ROUNDS = 30
"""Rounds of k-means at most; two clusters seldom need half as many."""


def local_cluster_labels(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    colour_weight: float = 0.7,
    max_distance: float = 20.0,
    roi: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """(H, W) int8: nucleus or background, by k-means (k = 2) on colour and distance in each Voronoi cell.

    The features of a pixel are `(colour_weight * rgb / 255, d / max_distance)`, d its distance to the cell's
    point in pixels, cut off at `max_distance`: so a nucleus need only differ from what is around it, however
    pale it is. The paper prints neither weights nor what is done to the clusters: these are the best of nine
    pairs on validation images (IoU 0.625 with the masks; 0.607 for k-means over the whole image), specks are
    taken off the nuclei and holes in them filled.

    Outside `roi` (H, W) nothing is labelled nor looked at.

    Source: Chamanzar and Nie (2020), section 2.3 (II).
    """
    shape = (image.shape[0], image.shape[1])
    known = np.ones(shape, bool) if roi is None else roi
    labels = np.where(known, BACKGROUND, UNLABELLED).astype(np.int8)
    if not len(points):
        return labels
    cells, distance = voronoi_cells(points, shape), distance_to_points(points, shape)
    near = np.minimum(distance / max_distance, 1)[..., None]
    features = np.concatenate([image * (colour_weight / 255), near], axis=-1, dtype=np.float32)
    nucleus = np.zeros(shape, bool)
    nucleus[known] = two_means(features[known], cells[known], distance[known] <= 2)
    nucleus = ndimage.binary_fill_holes(ndimage.binary_opening(nucleus, disk(2)))
    labels[nucleus & known] = NUCLEUS
    return labels


def two_means(
    features: NDArray[np.floating], cell: NDArray[np.integer], first: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(N,) bool: which of two clusters the pixels of each cell are in, by k-means of all cells at once.

    Parameters
    ----------
    features : (N, D)
    cell : (N,)      number of each pixel's cell, gaps allowed
    first : (N,)     the cluster that is True, to begin with
    """
    inside = first.copy()
    moving = np.arange(len(cell))
    for _ in range(ROUNDS):
        one, other = _away(features[moving], cell[moving], inside[moving])
        after = one < other
        # A cell that has come to rest is left alone from then on.
        changed = np.bincount(cell[moving], after != inside[moving], minlength=1) > 0
        inside[moving] = after
        moving = moving[changed[cell[moving]]]
        if not len(moving):
            break
    return inside


def _away(
    features: NDArray[np.floating], cell: NDArray[np.integer], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(N,) squared distances of each pixel to the means of its cell's two clusters; infinite from an empty one."""
    which = 2 * cell + inside
    most = 2 * int(cell.max(initial=0)) + 2
    count = np.bincount(which, minlength=most)
    away = np.where(count[2 * cell] > 0, 0.0, np.inf), np.where(count[2 * cell + 1] > 0, 0.0, np.inf)
    for column in features.T:
        mean = np.bincount(which, column, minlength=most) / np.maximum(1, count)
        for cluster, total in enumerate(away):
            total += (column - mean[2 * cell + cluster]) ** 2
    return away[1], away[0]


def repel_code(
    points: NDArray[np.floating],
    shape: tuple[int, int],
    *,
    alpha: float = 0.05,
    reach: float = 70.0,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """(H, W) float32: 1 at each point's pixel, falling off around it, the faster the nearer its neighbours are.

    `1 / (1 + alpha D)` with `D = d1 (1 + d1 / d2)`, d1 and d2 the distances to the nearest and the second
    nearest point; 0 where D is `reach` or more. Where there is one point only, D is d1.

    Parameters
    ----------
    where : (H, W) bool
        Elsewhere it is 0, and needs no time.

    Source: Liang et al. (2019), Eq. 4.
    """
    code = np.zeros(shape, np.float32)
    if not len(points):
        return code
    at = np.argwhere(np.ones(shape, bool) if where is None else where)
    # The second one is infinitely far where there is none.
    nearest: NDArray[np.float64] = np.asarray(KDTree(np.floor(points)).query(at, k=[1, 2])[0], np.float64)
    d1, d2 = nearest.T
    distance = d1 * (1 + d1 / np.maximum(d2, 1e-9))
    code[tuple(at.T)] = np.where(distance < reach, 1 / (1 + alpha * distance), 0)
    return code
