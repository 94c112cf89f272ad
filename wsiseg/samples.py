"""Images in folders with what is known of their nuclei: clicked points, masks, or both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import io

from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.points import ClickFormat, Clicks, check_classes, check_inside, points_from_labels, read_clicks
from wsiseg.resampling import resized

HELD_OUT = 4
"""Where a folder does not say which images are for validation, one in so many is."""
PICTURES = (".png", ".webp", ".tif", ".jpg")
"""Suffixes that an image may have, the first one there is taken; maps beside it are `.png`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image with what is known about its nuclei.

    name : str
    image : (H, W, 3) uint8
    mpp : float                     microns per pixel
    points : (N, 2) float64         clicked nuclei, (y, x), pixel corners at integers
    roi : (H, W) bool or None       where every nucleus is clicked; everywhere, where it is None
    labels : (H, W) int32 or None   instances, for evaluation and the fully supervised bound alone
    classes : tuple of N str        what each point was classified as, "" where it was not; empty: none was
    outlines : (H, W) int32 or None     nuclei that somebody outlined, numbered as the points are, from 1
    """

    name: str
    image: NDArray[np.uint8]
    mpp: float
    points: NDArray[np.float64]
    roi: NDArray[np.bool_] | None = None
    labels: NDArray[np.int32] | None = None
    classes: tuple[str, ...] = ()
    outlines: NDArray[np.int32] | None = None


def read_split(folder: Path, split: str) -> tuple[str, ...]:
    """Names of the images in one part of `folder/split.json`; "all", which needs no such file, is every image.

    In a folder without this file one image in four, by name, is "val" and the others are "train".

    Raises
    ------
    DataError
        If there are no images; if the file cannot be read, or has no such part (the parts that exist are named); if it is
        missing and there are fewer than four images.
    """
    names, path = _names(folder), folder / "split.json"
    if split == "all":
        return names
    if not names:
        raise DataError(f"{folder}: no images; they are expected as {folder / 'images'}/NAME.png")
    if split in ("train", "val") and not path.exists():
        if len(names) < HELD_OUT:
            raise DataError(
                f"{path}: missing, and {len(names)} images are too few to hold one in four out; add it"
            )
        return tuple(n for i, n in enumerate(names, start=1) if (i % HELD_OUT == 0) == (split == "val"))
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it lists the images of train, val, test"
        ) from error
    if split not in parts:
        raise DataError(f"{path}: no split {split!r}; choose one of {', '.join(parts)}")
    return tuple(parts[split])


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({p.stem for p in (folder / "images").glob("*") if p.suffix in PICTURES}))


def read_samples(
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    mpp: float = 0.25,
    from_masks: bool = False,
    classes: Sequence[str] = (),
    clicks: ClickFormat = ClickFormat(),  # noqa: B008  # frozen
) -> list[Sample]:
    """The images of `folder`, in the order of `names`, or all by name.

    Parameters
    ----------
    folder
        Holds `images/NAME.png` (or another of `PICTURES`) and beside it `points/NAME.csv` or `.geojson`, `labels/NAME.png`, or both;
        `roi/NAME.png` where only a part is clicked.
    mpp
        Microns per pixel of the images, which files do not say.
    from_masks
        Points are the centres of the bounding boxes of the labels: the papers' protocol.
    classes
        What points may be classified as; anything, where it is empty.
    clicks
        How the files of points are written.

    Raises
    ------
    DataError
        If an image is missing or cannot be read, or has no points (no labels, where those are to give them).
    PointsError
        If a file of points cannot be used; its row is named.
    """
    if names is None:
        names = _names(folder)
    if not names:
        raise DataError(f"{folder}: no images; they are expected as images/NAME.png")
    return [_read_sample(folder, name, mpp, from_masks, classes, clicks) for name in names]


def at_mpp(sample: Sample, mpp: float) -> Sample:
    """The sample with pixels of `mpp` microns: the image filtered, its maps by their nearest pixels, points moved along."""
    if sample.mpp == mpp:
        return sample
    height, width = sample.image.shape[:2]
    shape = (
        max(1, round(height * sample.mpp / mpp)),
        max(1, round(width * sample.mpp / mpp)),
    )
    points = np.minimum(sample.points * (np.array(shape) / (height, width)), np.nextafter(shape, 0))
    roi, labels, outlines = (
        None if values is None else nearest(values, shape)
        for values in (sample.roi, sample.labels, sample.outlines)
    )
    return replace(
        sample,
        image=resized(sample.image, shape),
        mpp=mpp,
        points=points,
        roi=roi,
        labels=labels,
        outlines=outlines,
    )


def nearest(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A map (H, W) at another (H, W): the pixel under the centre of each."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(shape, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


def _read_sample(
    folder: Path, name: str, mpp: float, from_masks: bool, classes: Sequence[str], layout: ClickFormat
) -> Sample:
    path = _picture(folder / "images", name)
    image = _read_image(path)
    if image.ndim != 3:
        raise DataError(f"{path}: {image.ndim} dimensions; a colour image has 3")
    labels = _beside(folder / "labels" / f"{name}.png", image.shape)
    roi = _beside(folder / "roi" / f"{name}.png", image.shape)
    known: tuple[str, ...] = ()
    clicks = [c for suffix in (".csv", ".geojson") if (c := folder / "points" / (name + suffix)).exists()]
    if from_masks:
        if labels is None:
            raise DataError(
                f"{folder / 'labels' / name}.png: no such file; masks of all nuclei are needed here"
            )
        points = points_from_labels(labels)
    elif clicks:
        inside = _inside(clicks[0], layout, (image.shape[0], image.shape[1]), classes)
        points, known = inside.points, inside.classes
    else:
        hint = "; its labels are masks: --points-from-masks takes their centres" * (labels is not None)
        raise DataError(f"{folder / 'points' / name}.csv: no such file{hint}")
    pixels = np.ascontiguousarray(image[..., :3])
    return Sample(name, pixels, mpp, points, None if roi is None else roi > 0, labels, known)


def _picture(folder: Path, name: str) -> Path:
    paths = [folder / (name + suffix) for suffix in PICTURES]
    return next((path for path in paths if path.exists()), paths[0])


def _inside(path: Path, layout: ClickFormat, shape: tuple[int, int], classes: Sequence[str]) -> Clicks:
    """The clicks of a file, all of which lie on the image and are of the classes asked for."""
    clicks = read_clicks(path, layout)
    if layout.lenient:
        clicks = clicks.take(Rect(0, 0, *shape).contains(clicks.points))
    check_classes(clicks, classes)
    check_inside(clicks, shape, "image")
    return clicks


def _beside(path: Path, shape: tuple[int, ...]) -> NDArray[np.int32] | None:
    """A map of an image of `shape`; None where there is no such file."""
    if not path.exists():
        return None
    values = _read_image(path).astype(np.int32)
    if values.shape != shape[:2]:
        raise DataError(f"{path}: {values.shape[:2]} rows and columns, its image has {shape[:2]}")
    return values


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(io.imread(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from error
