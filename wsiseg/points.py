"""Clicked nuclei: from instance masks (the papers' protocol) and from CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.errors import PointsError


def points_from_labels(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Centres of the instances' bounding boxes: the point annotation of Qu et al. (2019).

    Parameters
    ----------
    labels : (H, W) int    0 is background; numbers may have gaps

    Returns
    -------
    (N, 2) float64    (y, x) with pixel corners at integers, in the order of the labels

    Examples
    --------
    >>> points_from_labels(np.array([[0, 1, 1], [0, 1, 1]])).tolist()
    [[1.0, 2.0]]
    """
    boxes = [box for box in ndimage.find_objects(labels) if box is not None]
    centres = [[(s.start + s.stop) / 2 for s in box] for box in boxes]
    return np.array(centres, np.float64).reshape(-1, 2)


def read_points(path: Path) -> NDArray[np.float64]:
    """Points of a CSV file with a header that names the columns `x` and `y` (pixels).

    Returns
    -------
    (N, 2) float64    (y, x), in the order of the file

    Raises
    ------
    PointsError
        If the file cannot be read, has no such columns, or a row holds no number; the row is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PointsError(f"{path}: cannot be read as CSV ({error})") from error
    points = []
    for number, row in enumerate(rows, start=2):
        try:
            points.append((float(row["y"]), float(row["x"])))
        except (KeyError, TypeError, ValueError) as error:
            raise PointsError(
                f"{path}, line {number}: no numbers under `x` and `y`; the header must name both columns"
            ) from error
    return np.array(points, np.float64).reshape(-1, 2)
