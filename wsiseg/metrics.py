"""How well predicted nuclei match true ones, for one image.

Everything comes from one table of overlaps. Numbers are averaged over images, never pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as label_pieces

Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Which instances of two label images overlap, and by how much.

    truth, pred : (K,) int64     positions 0.. of the two instances of each overlapping pair
    common : (K,) int64          pixels they share
    truth_area, pred_area        pixels of every instance, in ascending order of their labels
    """

    truth: NDArray[np.int64]
    pred: NDArray[np.int64]
    common: NDArray[np.int64]
    truth_area: NDArray[np.int64]
    pred_area: NDArray[np.int64]

    @property
    def jaccard(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each pair."""
        union = self.truth_area[self.truth] + self.pred_area[self.pred] - self.common
        return self.common / union


def overlaps(truth: Labels, pred: Labels) -> Overlaps:
    """The table of overlaps of two (H, W) label images; 0 is background, gaps are allowed.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if truth.shape != pred.shape:
        raise ValueError(f"truth is {truth.shape}, the prediction {pred.shape}; they must be alike")
    truth_labels, t = np.unique(truth, return_inverse=True)
    pred_labels, p = np.unique(pred, return_inverse=True)
    t, p = t.ravel(), p.ravel()
    pairs, common = np.unique(t * len(pred_labels) + p, return_counts=True)
    ti, pi = np.divmod(pairs, len(pred_labels))
    real = (truth_labels[ti] > 0) & (pred_labels[pi] > 0)
    skip_t, skip_p = int((truth_labels == 0).any()), int((pred_labels == 0).any())
    return Overlaps(
        (ti[real] - skip_t).astype(np.int64),
        (pi[real] - skip_p).astype(np.int64),
        common[real].astype(np.int64),
        np.bincount(t)[skip_t:],
        np.bincount(p)[skip_p:],
    )


def _best(table: Overlaps) -> NDArray[np.int64]:
    """For each true instance the row of its pair of highest Jaccard (of equal ones the first), or -1."""
    best = np.full(len(table.truth_area), -1, np.int64)
    order = np.lexsort((-table.pred, table.jaccard))
    best[table.truth[order]] = order
    return best


def aji(truth: Labels, pred: Labels) -> float:
    """Aggregated Jaccard Index, as HoVer-Net computes it.

    Each true nucleus takes the prediction of highest Jaccard, used or not, and adds intersection and union;
    a missed one adds its own area, and so does every prediction that nobody took. 1 where both are empty.

    Source: Kumar et al. (2017).

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 3, 3]])
    >>> pred = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0]])
    >>> aji(truth, pred)
    0.5
    """
    table = overlaps(truth, pred)
    rows = _best(table)
    rows = rows[rows >= 0]
    used = np.zeros(len(table.pred_area), bool)
    used[table.pred[rows]] = True
    found = np.zeros(len(table.truth_area), bool)
    found[table.truth[rows]] = True
    inter = table.common[rows].sum()
    union = (table.truth_area[table.truth[rows]] + table.pred_area[table.pred[rows]]).sum() - inter
    union += table.truth_area[~found].sum() + table.pred_area[~used].sum()
    return float(inter / union) if union else 1.0


def aji_authors(truth: Labels, pred: Labels) -> float:
    """Aggregated Jaccard Index as the authors of SPN+IEN evaluate it: compare published numbers with this.

    Labels are first split into 8-connected pieces. A missed nucleus is paired with prediction 1: both areas
    are added, and prediction 1 counts as used. 1 where both are empty.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 3, 3]])
    >>> pred = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0]])
    >>> round(aji_authors(truth, pred), 3)
    0.333
    """
    table = overlaps(split_pieces(truth), split_pieces(pred))
    if not len(table.pred_area):
        return 0.0 if len(table.truth_area) else 1.0
    rows = _best(table)
    missed = rows < 0
    rows = rows[~missed]
    used = np.zeros(len(table.pred_area), bool)
    used[table.pred[rows]] = True
    inter = table.common[rows].sum()
    union = (table.truth_area[table.truth[rows]] + table.pred_area[table.pred[rows]]).sum() - inter
    if missed.any():
        used[0] = True
        union += table.truth_area[missed].sum() + missed.sum() * table.pred_area[0]
    return float(inter / (union + table.pred_area[~used].sum()))


def split_pieces(labels: Labels) -> NDArray[np.int32]:
    """Every 8-connected piece of every label as one instance, in reading order."""
    pieces: NDArray[np.int32] = label_pieces(labels, background=0, connectivity=2).astype(np.int32)
    return pieces


def object_dice(truth: Labels, pred: Labels) -> float:
    """Object-level Dice: each object against the one it overlaps most, weighted by area, both ways averaged.

    1 where both are empty, 0 where one is.

    Source: Sirinukunwattana et al. (2015).
    """
    table = overlaps(truth, pred)
    if not len(table.truth_area) or not len(table.pred_area):
        return float(len(table.truth_area) == len(table.pred_area))
    dice = 2 * table.common / (table.truth_area[table.truth] + table.pred_area[table.pred])
    halves = []
    for index, area in ((table.truth, table.truth_area), (table.pred, table.pred_area)):
        # Ascending overlap, among equals ascending Dice: what is written last is the partner.
        order = np.lexsort((dice, table.common))
        partner = np.zeros(len(area))
        partner[index[order]] = dice[order]
        halves.append((partner * area).sum() / area.sum())
    return float(np.mean(halves))


@dataclass(frozen=True, slots=True)
class Detection:
    """Matches at an IoU threshold."""

    tp: int
    fp: int
    fn: int
    mean_iou: float

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0


def match(truth: Labels, pred: Labels, *, iou: float = 0.5) -> Detection:
    """Match instances whose IoU is above `iou`; above a half a match can only be to one.

    Raises
    ------
    ValueError
        If `iou` is below 0.5, where that is not so.
    """
    if iou < 0.5:
        raise ValueError(f"iou {iou} is below 0.5, where matches are ambiguous")
    table = overlaps(truth, pred)
    hit = table.jaccard > iou
    tp = int(hit.sum())
    mean = float(table.jaccard[hit].mean()) if tp else 0.0
    return Detection(tp, len(table.pred_area) - tp, len(table.truth_area) - tp, mean)


def panoptic_quality(truth: Labels, pred: Labels) -> float:
    """Mean IoU of the matches times their F1, at IoU 0.5; 1 where both are empty.

    Source: Kirillov et al. (2019).
    """
    found = match(truth, pred)
    if not found.tp:
        return float(not (found.fp or found.fn))
    return found.f1 * found.mean_iou


def pixel_iou(truth: Labels, pred: Labels) -> float:
    """Intersection over union of the foregrounds; 1 where both are empty."""
    a, b = truth > 0, pred > 0
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def pixel_f1(truth: Labels, pred: Labels) -> float:
    """F1 (Dice) of the foregrounds; 1 where both are empty."""
    a, b = truth > 0, pred > 0
    total = a.sum() + b.sum()
    return float(2 * (a & b).sum() / total) if total else 1.0


def point_f1(points: NDArray[np.floating], pred: Labels) -> float:
    """How well nuclei (H, W) match clicked points (N, 2), (y, x): 1 where each nucleus holds one point.

    A nucleus matches one of the points in it, whatever their number: what is merged, missed, split or invented
    lowers the number; where its outline runs does not count. 1 where there is neither point nor nucleus.

    >>> pred = np.array([[1, 1, 0, 2, 2, 0, 3]])
    >>> point_f1(np.array([[0.5, 0.5], [0.5, 1.5], [0.5, 3.5]]), pred)
    0.6666666666666666
    """
    y, x = np.floor(points).astype(np.int64).T if len(points) else np.zeros((2, 0), np.int64)
    hit = np.unique(pred[y, x])
    matched = int((hit > 0).sum())
    found = len(np.unique(pred[pred > 0]))
    return 2 * matched / (found + len(points)) if found + len(points) else 1.0
