"""How many of the points on the immunohistochemistry sample a model finds (tests/data/README.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage.data import immunohistochemistry

from wsiseg.geometry import Rect

FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Points set by eye.

    points : (N, 2) float64    (y, x), pixel corners
    sure : (N,) bool           False: perhaps a nucleus; whether it is found or not counts for nothing
    regions : rectangles       in which every nucleus has its point; they do not overlap
    """

    points: NDArray[np.float64]
    sure: NDArray[np.bool_]
    regions: tuple[Rect, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What was found: `found` of `nuclei` sure points; `right` of `predictions` that could be judged."""

    found: int
    nuclei: int
    right: int
    predictions: int

    @property
    def recall(self) -> float:
        """Found sure points / sure points; NaN where there is none."""
        return self.found / self.nuclei if self.nuclei else float("nan")

    @property
    def precision(self) -> float:
        """Right predictions / predictions, without those on unsure points; NaN where there is none."""
        return self.right / self.predictions if self.predictions else float("nan")


def read_image() -> NDArray[np.uint8]:
    """The picture that the points lie on: (512, 512, 3)."""
    image: NDArray[np.uint8] = immunohistochemistry()  # type: ignore[no-untyped-call]  # scikit-image has no types
    return image


def read_truth(folder: Path = FOLDER) -> Truth:
    """The points on `read_image()`, in its pixels."""
    with (folder / "ihc_points.csv").open(newline="") as file:
        rows = [(float(r["y"]), float(r["x"]), r["sure"] == "1") for r in csv.DictReader(file)]
    with (folder / "ihc_regions.csv").open(newline="") as file:
        regions = tuple(Rect(*(int(r[k]) for k in ("y0", "x0", "y1", "x1"))) for r in csv.DictReader(file))
    return Truth(np.array([row[:2] for row in rows]), np.array([row[2] for row in rows]), regions)


def centroids_of(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(M, 2) centroids (y, x), pixel corners, of labels 1..M without gaps."""
    count = int(labels.max(initial=0))
    if not count:
        return np.zeros((0, 2))
    return np.array(center_of_mass(labels > 0, labels, np.arange(1, count + 1))) + 0.5


def score_points(
    centroids: NDArray[np.floating],
    truth: Truth,
    *,
    radius: float,
    labels: NDArray[np.integer] | None = None,
) -> Score:
    """Match predictions to points, one to one, and count.

    Parameters
    ----------
    centroids : (M, 2)
        (y, x) of the predicted nuclei, in the pixels of `truth`, pixel corners.
    radius
        Pixels: how far a point may lie from a centroid.
    labels : (H, W)
        Prediction i is label i + 1: a point inside it matches at any distance.

    Notes
    -----
    As many sure points as possible are matched, then as many of the others, then the nearest.
    """
    near = cdist(truth.points, centroids) if len(centroids) else np.zeros((len(truth.points), 0))
    allowed = near <= radius
    if labels is not None:
        allowed |= owners(labels, truth.points)[:, None] == np.arange(1, len(centroids) + 1)
    # The bonuses are far apart: no sum of distances, nor of unsure points, outweighs one sure point.
    gain = np.where(truth.sure, 1e10, 1e6)[:, None] - near
    rows, columns = linear_sum_assignment(np.where(allowed, gain, 0.0), maximize=True)
    real = allowed[rows, columns]
    rows, columns = rows[real], columns[real]

    counted = truth.sure & within(truth.points, truth.regions)
    judged = within(centroids, truth.regions)
    judged[columns[~truth.sure[rows]]] = False
    right = np.zeros(len(centroids), bool)
    right[columns[truth.sure[rows]]] = True
    return Score(int(counted[rows].sum()), int(counted.sum()), int((right & judged).sum()), int(judged.sum()))


def owners(labels: NDArray[np.integer], points: NDArray[np.floating]) -> NDArray[np.integer]:
    """Label under each of `points` (N, 2); 0 where there is none."""
    y, x = np.floor(points).astype(int).T
    inside = Rect(0, 0, *labels.shape).contains(points)
    under: NDArray[np.integer] = np.zeros(len(points), labels.dtype)
    under[inside] = labels[y[inside], x[inside]]
    return under


def within(points: NDArray[np.floating], regions: tuple[Rect, ...]) -> NDArray[np.bool_]:
    """Which of `points` (N, 2) lie in any of `regions`."""
    inside = np.zeros(len(points), bool)
    for region in regions:
        inside |= region.contains(points)
    return inside
