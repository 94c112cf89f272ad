"""From clusters of pixels to nuclei: connected pieces, small ones given away, holes filled, numbered without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from wsiseg.compiled import compiled
from wsiseg.label_sums import label_sums


def without_background(
    clusters: NDArray[np.int32],
    embedding: NDArray[np.floating],
    prob: NDArray[np.floating],
    *,
    sure: float,
    fragments: int = 5,
) -> NDArray[np.int32]:
    """The clusters without that of the background, where the embedding holds one (`input`, `patch`).

    It is the cluster whose mean embedding is nearest to that of the pixels with `prob` below `sure`; without
    such pixels it is, as published, the one of most connected pieces, if there are at least `fragments`.
    """
    count = int(clusters.max(initial=0))
    if not count:
        return clusters
    background = prob < sure
    if background.any():
        means = mean_embeddings(embedding, clusters, count)
        away = embedding[:, background].astype(np.float64).mean(1)
        chosen = int(np.linalg.norm(means - away, axis=1).argmin()) + 1
        return np.where(clusters == chosen, 0, clusters)
    pieces, number = label_pieces(clusters, background=0, connectivity=1, return_num=True)
    owner = ndimage.maximum(clusters, pieces, np.arange(1, number + 1)).astype(int)
    most = np.bincount(owner, minlength=count + 1)
    return np.where(clusters == most.argmax(), 0, clusters) if most.max() >= fragments else clusters


def instances(clusters: NDArray[np.int32], *, min_area: int) -> NDArray[np.int32]:
    """A nucleus is one connected piece of one cluster.

    A piece smaller than `min_area` goes to the neighbour it shares most border with (of equal ones, the
    first), if that is large enough; else it is dropped. Holes are filled.

    Parameters
    ----------
    clusters : (H, W) int    0 is background

    Returns
    -------
    (H, W) int32    1..n without gaps, in reading order of their first pixels

    Examples
    --------
    >>> instances(np.array([[1, 1, 1, 2], [0, 0, 0, 0], [1, 1, 1, 0]]), min_area=3).tolist()
    [[1, 1, 1, 1], [0, 0, 0, 0], [2, 2, 2, 0]]
    """
    pieces = label_pieces(clusters, background=0, connectivity=1).astype(np.int32)
    small = np.bincount(pieces.ravel()) < min_area
    small[0] = False
    target = np.arange(len(small), dtype=np.int32)
    target[small] = 0
    contacts = _contacts(pieces)
    contacts = contacts[small[contacts[:, 0]] & ~small[contacts[:, 1]]]
    pairs, borders = _counted(contacts, len(small))
    # Ascending borders, so that the longest is written last; among equals the lower number.
    order = np.lexsort((-pairs[:, 1], borders))
    target[pairs[order, 0]] = pairs[order, 1]
    return _number(_fill_holes(target[pieces]), np.ones(len(small), bool))


@compiled
def _contacts(pieces: NDArray[np.integer]) -> NDArray[np.int64]:
    """(K, 2) both orders of every pair of neighbouring pixels of different pieces, none of them 0."""
    height, width = pieces.shape
    most = 0
    for fill in range(2):  # the first time they are only counted
        pairs = np.empty((2 * most, 2), np.int64)
        most = 0
        for y in range(height):
            for x in range(width):
                one = pieces[y, x]
                if one == 0:
                    continue
                for other in (pieces[y, min(x + 1, width - 1)], pieces[min(y + 1, height - 1), x]):
                    if other != 0 and other != one:
                        if fill:
                            pairs[2 * most, 0], pairs[2 * most, 1] = one, other
                            pairs[2 * most + 1, 0], pairs[2 * most + 1, 1] = other, one
                        most += 1
    return pairs


def _counted(pairs: NDArray[np.integer], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different ones among pairs of numbers below `size`, in ascending order, and how often each is there.

    One number for a pair sorts several times faster than `np.unique` sorts rows.
    """
    keys, counts = np.unique(pairs[:, 0].astype(np.int64) * size + pairs[:, 1], return_counts=True)
    return np.stack(np.divmod(keys, size), axis=1), counts


def _fill_holes(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """What one nucleus encloses, background and smaller pieces, becomes that nucleus.

    A leaf touches one other piece alone and no border of the image. A leaf that touches a nucleus is
    enclosed by it; so is a hole, with the leaves in it, that touches but one piece that is no leaf.
    """
    count = int(labels.max(initial=0))
    if not count:
        return labels
    holes = label_pieces(labels == 0, background=False, connectivity=1)
    pieces = np.where(labels > 0, labels, holes + count).astype(np.int32)
    size = int(pieces.max()) + 1
    one, other = _counted(_contacts(pieces), size)[0].T
    border = np.zeros(size, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        border[side] = True
    leaf = (np.bincount(one, minlength=size) == 1) & ~border
    target = np.arange(size, dtype=np.int32)
    target[count + 1 :] = 0
    inside = leaf[one] & (other <= count)
    target[one[inside]] = other[inside]
    firm = (one > count) & ~border[one] & ~leaf[other]
    alone = np.bincount(one[firm], minlength=size) == 1
    encloser = np.zeros(size, np.int64)
    encloser[one[firm]] = other[firm]
    filled = np.flatnonzero(alone)
    target[filled] = encloser[filled]
    within = leaf[one] & alone[other]
    target[one[within]] = encloser[other[within]]
    return target[pieces]


@compiled
def _number(labels: NDArray[np.integer], keep: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Those of the labels that are kept, numbered 1.. in reading order of their first pixels."""
    number, count = np.zeros(len(keep), np.int32), 0
    numbered = np.zeros(labels.shape, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0 and keep[label]:
                if number[label] == 0:
                    count += 1
                    number[label] = count
                numbered[y, x] = number[label]
    return numbered


def likely(labels: NDArray[np.int32], prob: NDArray[np.floating], least: float) -> NDArray[np.int32]:
    """The nuclei whose mean of `prob` is at least `least`, numbered again.

    A low threshold draws the faint rim of a nucleus, and finds faint things that are none; this drops those.
    """
    if least <= 0 or not labels.any():
        return labels
    sums, sizes = label_sums(prob[None], labels, int(labels.max()))
    keep = np.concatenate([[False], sums[:, 0] >= least * sizes])
    return _number(labels, keep)


def mean_embeddings(
    embedding: NDArray[np.floating], labels: NDArray[np.integer], count: int
) -> NDArray[np.float32]:
    """(count, D) float32 mean of (D, H, W) over the pixels of each label 1..count."""
    sums, sizes = label_sums(embedding, labels, count)
    return (sums / np.maximum(1, sizes)[:, None]).astype(np.float32)
