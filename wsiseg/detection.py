"""How well detected points match true ones: precision, recall, F1, how far off the matches are, and whether counts agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class PointMatches:
    """Detected points of one image, or of many, against the true ones.

    truth, found : (TP,) int64    rows of the two points of each match
    distance : (TP,) float64      between them, pixels
    fp : int                      detected points that match none
    fn : int                      true points that were not detected
    """

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    distance: NDArray[np.float64]
    fp: int
    fn: int

    @property
    def tp(self) -> int:
        """Matches."""
        return len(self.distance)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 1 where nothing was detected."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 1.0

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 where there is nothing to detect."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 1.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to detect and nothing was detected."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def mean_distance(self) -> float:
        """mu_d of the matches, pixels; nan where there is none. Qu et al. (2020), Eq. 11."""
        return float(self.distance.mean()) if self.tp else float("nan")

    @property
    def distance_deviation(self) -> float:
        """sigma_d of the matches, pixels; nan where there is none. Qu et al. (2020), Eq. 11."""
        return float(self.distance.std()) if self.tp else float("nan")


def match_points(truth: Points, found: Points, *, radius: float) -> PointMatches:
    """Pairs of a true and a detected point less than `radius` apart, the closest first, each point in one pair.

    Parameters
    ----------
    truth, found : (N, 2), (M, 2)    (y, x); either may be empty
    radius
        Pixels: the average radius of a nucleus (11 for MultiOrgan at 0.25 um/px).

    Notes
    -----
    Of several detections in one circle the closest is the match (Qu et al. 2020, section V-B); of equally close pairs
    it is that of the first true point, then of the first detection.

    Examples
    --------
    >>> matches = match_points(np.array([[5.0, 5.0], [5.0, 40.0]]), np.array([[5.0, 7.0], [5.0, 6.0]]), radius=8)
    >>> matches.tp, matches.fp, matches.fn, matches.mean_distance
    (1, 1, 1, 1.0)
    """
    true_left, found_left = np.ones(len(truth), bool), np.ones(len(found), bool)
    pairs = []
    for distance, i, j in _close_pairs(truth, found, radius):
        if true_left[i] and found_left[j]:
            true_left[i] = found_left[j] = False
            pairs.append((distance, i, j))
    apart, rows, columns = np.array(pairs, np.float64).reshape(-1, 3).T
    return PointMatches(
        rows.astype(np.int64), columns.astype(np.int64), apart, int(found_left.sum()), int(true_left.sum())
    )


def _close_pairs(truth: Points, found: Points, radius: float) -> list[tuple[float, int, int]]:
    """(distance, true point, detected point) of all pairs less than `radius` apart, in ascending order."""
    if not len(truth) or not len(found):
        return []
    pairs = cKDTree(truth).sparse_distance_matrix(cKDTree(found), radius, output_type="coo_matrix")
    rows = zip(pairs.data.tolist(), pairs.row.tolist(), pairs.col.tolist(), strict=True)
    return sorted(row for row in rows if row[0] < radius)


def pooled(images: Iterable[PointMatches]) -> PointMatches:
    """The matches of many images as those of one: the authors count over all test images together.

    Rows are those of the points of all images, one image after another.
    """
    every = list(images)
    rows: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    truths = founds = 0
    for one in every:
        rows.append((one.truth + truths, one.found + founds))
        truths, founds = truths + one.tp + one.fn, founds + one.tp + one.fp
    none = np.zeros(0, np.int64)
    return PointMatches(
        np.concatenate([none, *(truth for truth, _ in rows)]),
        np.concatenate([none, *(found for _, found in rows)]),
        np.concatenate([np.zeros(0), *(one.distance for one in every)]),
        sum(one.fp for one in every),
        sum(one.fn for one in every),
    )


def concordance(truth: NDArray[np.number], found: NDArray[np.number]) -> float:
    """Concordance correlation coefficient of two series of counts (N,), one number an image.

    1 where both are the same throughout; less where they are only correlated, and biased or scaled. NaN for
    two constant series of one value, of which it says nothing.

    Source: Lin (1989), with variances and covariance over N.

    Examples
    --------
    >>> round(concordance(np.array([1, 2, 3]), np.array([2, 3, 4])), 3)
    0.571
    """
    x, y = truth.astype(np.float64), found.astype(np.float64)
    apart = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    together = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * together / apart) if apart else float("nan")
