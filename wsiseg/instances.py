"""From clusters of pixels to nuclei: connected pieces, small ones given away, holes filled, numbered without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from wsiseg import compiled
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
    pieces, value, sizes = _connected(clusters)
    small = sizes < min_area
    target = np.where(small | (value == 0), 0, np.arange(len(value))).astype(np.int32)
    one, other, borders = _neighbours(pieces, value > 0)
    given = small[one] & ~small[other]
    one, other, borders = one[given], other[given], borders[given]
    # Ascending borders, so that the longest is written last; among equals the lower number.
    order = np.lexsort((-other, borders))
    target[one[order]] = other[order]
    return _without_holes(target[pieces])


def _connected(
    values: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Connected pieces of equal numbers (H, W), 0 as well: (H, W) 1..n in reading order of their first pixels.

    And (n + 1,) the number of which each piece is, and its pixels; the first of both is nobody's.
    """
    if compiled.AVAILABLE:
        return _joined(values)
    pieces = label_pieces(values, background=-1, connectivity=1).astype(np.int32)
    _, first, sizes = np.unique(pieces, return_index=True, return_counts=True)
    return pieces, np.append(np.int32(0), values.flat[first]), np.append(0, sizes)


@compiled.compiled
def _joined(values: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    height, width = values.shape
    pieces, parent, begun = np.empty((height, width), np.int32), np.empty(values.size + 1, np.int32), 0
    for y in range(height):
        for x in range(width):
            left = x > 0 and values[y, x - 1] == values[y, x]
            if y > 0 and values[y - 1, x] == values[y, x]:
                piece = pieces[y - 1, x]
                if left and pieces[y, x - 1] != piece:
                    one, other = _root(parent, piece), _root(parent, pieces[y, x - 1])
                    piece = min(one, other)
                    parent[max(one, other)] = piece
            elif left:
                piece = pieces[y, x - 1]
            else:
                begun += 1
                piece = begun
                parent[begun] = begun
            pieces[y, x] = piece
    count = 0
    for piece in range(1, begun + 1):  # a parent comes before its pieces, and has its last number by then
        if parent[piece] == piece:
            count += 1
            parent[piece] = count
        else:
            parent[piece] = parent[parent[piece]]
    value, sizes = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int64)
    for y in range(height):
        for x in range(width):
            piece = parent[pieces[y, x]]
            pieces[y, x] = piece
            value[piece] = values[y, x]
            sizes[piece] += 1
    return pieces, value, sizes


@compiled.compiled
def _root(parent: NDArray[np.int32], piece: int) -> int:
    while parent[piece] != piece:
        parent[piece] = parent[parent[piece]]
        piece = parent[piece]
    return piece


def _neighbours(
    pieces: NDArray[np.int32], counts: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(K,) both orders of every pair of neighbours among the pieces 1..n that `counts`, and how many pixels meet."""
    size = len(counts)
    # One number for a pair sorts several times faster than `np.unique` sorts rows.
    keys, borders = np.unique(_contacts(pieces, counts), return_counts=True)
    low, high = np.divmod(keys, size)
    return np.append(low, high), np.append(high, low), np.append(borders, borders)


@compiled.compiled
def _contacts(pieces: NDArray[np.int32], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(C,) lower number * len(counts) + higher number, for every two pixels side by side of different pieces."""
    (height, width), size = pieces.shape, len(counts)
    keys = np.empty(2 * pieces.size, np.int64)
    found = 0
    for y in range(height):
        for x in range(width):
            one = pieces[y, x]
            if not counts[one]:
                continue
            for other in (pieces[y, min(x + 1, width - 1)], pieces[min(y + 1, height - 1), x]):
                if other != one and counts[other]:
                    keys[found] = min(one, other) * size + max(one, other)
                    found += 1
    return keys[:found].copy()


def _without_holes(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """What one nucleus encloses, background and smaller pieces, becomes that nucleus; numbered 1.. in reading order.

    A leaf touches one other piece alone and no border of the image. A leaf that touches a nucleus is
    enclosed by it; so is a hole, with the leaves in it, that touches but one piece that is no leaf.
    """
    pieces, value, _ = _connected(labels)
    nucleus = value > 0
    size = len(value)
    one, other, _ = _neighbours(pieces, np.ones(size, bool))
    border = np.zeros(size, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        border[side] = True
    leaf = (np.bincount(one, minlength=size) == 1) & ~border
    target = np.where(nucleus, np.arange(size), 0)
    inside = leaf[one] & nucleus[other]
    target[one[inside]] = other[inside]
    firm = ~nucleus[one] & ~border[one] & ~leaf[other]
    alone = np.bincount(one[firm], minlength=size) == 1
    encloser = np.zeros(size, np.int64)
    encloser[one[firm]] = other[firm]
    filled = np.flatnonzero(alone)
    target[filled] = encloser[filled]
    within = leaf[one] & alone[other]
    target[one[within]] = encloser[other[within]]
    return _number(pieces, target)


@compiled.compiled
def _number(labels: NDArray[np.integer], target: NDArray[np.int64]) -> NDArray[np.int32]:
    """What each label becomes, 0 or another one, numbered 1.. in reading order of the first pixels."""
    number, count = np.zeros(len(target), np.int32), 0
    numbered = np.empty(labels.shape, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = target[labels[y, x]]
            if label > 0 and number[label] == 0:
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
    return _kept(labels, sums[:, 0] >= least * sizes)


def plausible(
    labels: NDArray[np.int32], red: NDArray[np.uint8], *, min_area: int, least_density: float
) -> NDArray[np.int32]:
    """The nuclei of `min_area` pixels or more that are darker than glass, numbered again.

    Specks on glass have a nucleus's outline and hardly a colour: the optical density (natural logarithm) of a
    nucleus's mean of `red` (H, W) is at least `least_density`.

    >>> red = np.array([[240, 230, 250, 120, 90]], np.uint8)
    >>> plausible(np.array([[3, 3, 0, 1, 2]]), red, min_area=1, least_density=0.15).tolist()
    [[0, 0, 0, 1, 2]]
    """
    sums, sizes = label_sums(red[None], labels, int(labels.max(initial=0)))
    return _kept(labels, (sizes >= min_area) & (sums[:, 0] <= (256 * np.exp(-least_density) - 1) * sizes))


def _kept(labels: NDArray[np.int32], worthy: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The labels 1..n that are (n,) `worthy`, numbered again."""
    return _number(labels, np.concatenate([[0], np.where(worthy, np.arange(1, len(worthy) + 1), 0)]))


def mean_embeddings(
    embedding: NDArray[np.floating], labels: NDArray[np.integer], count: int
) -> NDArray[np.float32]:
    """(count, D) float32 mean of (D, H, W) over the pixels of each label 1..count."""
    sums, sizes = label_sums(embedding, labels, count)
    return (sums / np.maximum(1, sizes)[:, None]).astype(np.float32)
