"""Labelled images in folders: `images/NAME.png`, and `labels/NAME.png` or `points/NAME.csv` beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage import io

from wsiseg.errors import DataError
from wsiseg.points import points_from_labels, read_points


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image with what is known about its nuclei.

    name : str
    image : (H, W, 3) uint8
    mpp : float                     microns per pixel
    points : (N, 2) float64         clicked nuclei, (y, x), pixel corners at integers
    roi : (H, W) bool or None       where every nucleus is clicked; everywhere, where it is None
    labels : (H, W) int32 or None   instances, for evaluation and the fully supervised bound alone
    """

    name: str
    image: NDArray[np.uint8]
    mpp: float
    points: NDArray[np.float64]
    roi: NDArray[np.bool_] | None = None
    labels: NDArray[np.int32] | None = None


def read_split(folder: Path, split: str) -> tuple[str, ...]:
    """Names of the images in one part of `folder/split.json`.

    Raises
    ------
    DataError
        If there is no such file or no such part; the parts that exist are named.
    """
    path = folder / "split.json"
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it lists the images of train, val, test"
        ) from error
    if split not in parts:
        raise DataError(f"{path}: no split {split!r}; choose one of {', '.join(parts)}")
    return tuple(parts[split])


def read_samples(folder: Path, names: Sequence[str] | None = None, *, mpp: float = 0.25) -> list[Sample]:
    """The images of `folder`, in the order of `names`, or all by name.

    Points are those of `points/NAME.csv`, else the bounding-box centres of `labels/NAME.png`.

    Raises
    ------
    DataError
        If an image is missing, cannot be read, or has neither points nor labels.
    """
    if names is None:
        names = sorted(p.stem for p in (folder / "images").glob("*.png"))
    if not names:
        raise DataError(f"{folder}: no images; they are expected as images/NAME.png")
    return [_read_sample(folder, name, mpp) for name in names]


def _read_sample(folder: Path, name: str, mpp: float) -> Sample:
    image = _read_image(folder / "images" / f"{name}.png")
    if image.ndim != 3:
        raise DataError(f"{folder / 'images' / name}.png: {image.ndim} dimensions; a colour image has 3")
    labels, roi = None, None
    if (folder / "labels" / f"{name}.png").exists():
        labels = _read_image(folder / "labels" / f"{name}.png").astype(np.int32)
        if labels.shape != image.shape[:2]:
            raise DataError(f"{folder / 'labels' / name}.png: {labels.shape}, its image is {image.shape[:2]}")
    if (folder / "roi" / f"{name}.png").exists():
        roi = _read_image(folder / "roi" / f"{name}.png") > 0
    clicks = folder / "points" / f"{name}.csv"
    if clicks.exists():
        points = read_points(clicks)
    elif labels is not None:
        points = points_from_labels(labels)
    else:
        raise DataError(f"{folder}: {name} has neither points/{name}.csv nor labels/{name}.png")
    return Sample(name, np.ascontiguousarray(image[..., :3]), mpp, points, roi, labels)


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(io.imread(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from error
