"""Clicked nuclei: from QuPath's GeoJSON, from CSV files, and from instance masks (the papers' protocol)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.errors import PointsError
from wsiseg.features import read_geometries
from wsiseg.geometry import Rect

GEOJSON = (".geojson", ".json", ".gz")
PICTURES = (".png", ".tif", ".tiff", ".npy")


@dataclass(frozen=True, slots=True)
class ClickFormat:
    """How a data set writes its clicks down.

    column : str      of CSV files, that holds the class
    names             class by what stands there; where this is empty, that is the class
    lenient : bool    points outside their image, and all but the first of those at one place, are left out
                      instead of refused: for published data that cannot be mended
    """

    column: str = "class"
    names: Mapping[str, str] = field(default_factory=dict)
    lenient: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Clicks:
    """Clicked nuclei of one image.

    path : Path                    the file they were read from
    points : (N, 2) float64        (y, x), pixel corners at integers, in pixels of the image
    classes : tuple of N str       what each was classified as; "" where it was not
    places : tuple of N str        where each stands in the file, for errors: "line 7", "feature 3"
    """

    path: Path
    points: NDArray[np.float64]
    classes: tuple[str, ...]
    places: tuple[str, ...]

    def take(self, which: NDArray[np.bool_]) -> Clicks:
        """Those that are marked, (N,) bool."""
        kept = np.flatnonzero(which).tolist()
        return Clicks(
            self.path,
            self.points[kept],
            tuple(self.classes[i] for i in kept),
            tuple(self.places[i] for i in kept),
        )

    def at(self, index: int) -> str:
        """A point as people write it: (x, y)."""
        y, x = self.points[index]
        return f"({x:g}, {y:g})"

    def refuse(self, wrong: NDArray[np.bool_], why: Callable[[int], str]) -> None:
        """Stop at the first point that is `wrong` (N,) bool; `why` says what it is, from its index.

        Raises
        ------
        PointsError
            Naming the file, where the point stands, and how many are wrong.
        """
        if wrong.any():
            first, count = int(wrong.argmax()), int(wrong.sum())
            more = f" ({count} such points in all)" if count > 1 else ""
            raise PointsError(f"{self.path}, {self.places[first]}: {why(first)}{more}")


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


def read_clicks(path: Path, layout: ClickFormat = ClickFormat()) -> Clicks:
    """Clicked nuclei of a file: Point and MultiPoint annotations of GeoJSON, or CSV with `x,y[,class]`.

    Other geometries are left out. No file may hold a point twice, unless its `layout` is lenient: it would be
    taught as two nuclei.

    Raises
    ------
    PointsError
        If the file cannot be read, holds something that is no point, or one twice; the row is named.
    """
    if path.suffix.lower() in PICTURES:
        raise PointsError(f"{path}: a picture, where clicked points are asked for; use --points-from-masks")
    read = _read_geojson if path.suffix.lower() in GEOJSON else partial(_read_csv, column=layout.column)
    rows = list(read(path))
    clicks = Clicks(
        path,
        np.array([(y, x) for y, x, _, _ in rows], np.float64).reshape(-1, 2),
        tuple(layout.names.get(name, name) for _, _, name, _ in rows),
        tuple(place for _, _, _, place in rows),
    )
    _, first, which = np.unique(clicks.points, axis=0, return_index=True, return_inverse=True)
    earlier = first[which.reshape(-1)]
    again = earlier != np.arange(len(rows))
    if layout.lenient:
        return clicks.take(~again)
    clicks.refuse(again, lambda i: f"the same point as {clicks.places[earlier[i]]}; delete one of them")
    return clicks


def check_inside(clicks: Clicks, shape: tuple[int, int], of: str) -> None:
    """Refuse a point outside an image of `shape` (H, W); `of` says what the image is.

    Raises
    ------
    PointsError
        Naming the point and the size.
    """
    clicks.refuse(
        ~Rect(0, 0, *shape).contains(clicks.points),
        lambda i: f"{clicks.at(i)} lies outside the {of}, {shape[1]} x {shape[0]} pixels",
    )


def check_classes(clicks: Clicks, allowed: Sequence[str]) -> None:
    """Refuse a class that is not among those `allowed`; nothing is refused where that is empty.

    Raises
    ------
    PointsError
        Naming the class and those allowed.
    """
    clicks.refuse(
        np.array([bool(allowed) and name not in allowed for name in clicks.classes], bool),
        lambda i: f"class {clicks.classes[i]!r} is none of {', '.join(map(repr, allowed))} that are expected",
    )


Row = tuple[float, float, str, str]
"""y, x, class, and where it stands."""


def _read_csv(path: Path, column: str) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PointsError(f"{path}: cannot be read as CSV ({error})") from error
    for line, row in enumerate(rows, start=2):
        try:
            y, x = float(row["y"]), float(row["x"])
            if not np.isfinite([y, x]).all():
                raise ValueError(f"({x}, {y})")
        except (KeyError, TypeError, ValueError) as error:
            raise PointsError(
                f"{path}, line {line}: no numbers under `x` and `y`; the header must name both columns"
            ) from error
        yield y, x, row.get(column) or "", f"line {line}"


def _read_geojson(path: Path) -> Iterator[Row]:
    try:
        for each in read_geometries(path):
            corners = {"Point": [each.coordinates], "MultiPoint": each.coordinates}.get(each.kind, [])
            for number, (x, y, *_) in enumerate(corners, 1):
                place = f"feature {each.feature}" + (f", point {number}" if len(corners) > 1 else "")
                yield float(y), float(x), each.class_name, place
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PointsError(f"{path}: cannot be read as GeoJSON of points ({error})") from error
