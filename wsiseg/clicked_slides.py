"""Training samples from slides: the pixels of annotated regions and the nuclei that were clicked in them.

A manifest is a CSV file, a slide a row:

    slide,points[,regions][,slide_mpp]
    a.svs,a.geojson,,
    b.tif,b.csv,b-areas.geojson,0.25

`points` is what `scripts/export_points.groovy` writes (points and regions in one file), or a CSV file of
points with the regions in another. A region that holds points says: every nucleus in here is clicked. Paths
are relative to the manifest.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import DataError, PointsError, RegionError
from wsiseg.geometry import Rect
from wsiseg.points import Clicks, check_classes, check_inside, read_clicks
from wsiseg.regions import Region, read_regions, region_contains, region_mask
from wsiseg.samples import Sample
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef

log = logging.getLogger(__name__)

PIECE = 1024
"""Side of the largest sample, pixels: a large region is cut, so that stains are judged where they are."""

MARGIN = 64
"""Pixels around a sample that are seen but teach nothing."""


@dataclass(frozen=True, slots=True)
class ClickedSlide:
    """A row of a manifest.

    slide : SlideRef
    points : Path
    regions : Path         may be the file of the points
    """

    slide: SlideRef
    points: Path
    regions: Path


def read_manifest(path: Path) -> tuple[ClickedSlide, ...]:
    """The rows of a manifest.

    Raises
    ------
    DataError
        If it cannot be read, holds no row, or a row names no slide, no points, a CSV file of points without their
        regions, or a file that is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: no slide; rows are expected below the header slide,points")
    return tuple(_row(path, line, row) for line, row in enumerate(rows, start=2))


def _row(path: Path, line: int, row: dict[str, str | None]) -> ClickedSlide:
    where = f"{path}, line {line}"
    slide, points = row.get("slide") or "", row.get("points") or ""
    if not slide or not points:
        raise DataError(f"{where}: no slide or no points; the header must name both columns")
    if points.lower().endswith(".csv") and not row.get("regions"):
        raise DataError(
            f"{where}: {points} holds points alone; name the GeoJSON file of their regions as regions"
        )
    try:
        mpp = float(row.get("slide_mpp") or "nan")
    except ValueError as error:
        raise DataError(f"{where}: slide_mpp {row['slide_mpp']!r} is no number") from error
    clicked = ClickedSlide(
        SlideRef(slide if "://" in slide else str(path.parent / slide), mpp=None if np.isnan(mpp) else mpp),
        path.parent / points,
        path.parent / (row.get("regions") or points),
    )
    for file in (clicked.points, clicked.regions):
        if not file.is_file():
            raise DataError(f"{where}: {file}: no such file")
    return clicked


def read_slide_samples(path: Path, *, mpp: float, classes: Sequence[str] = ()) -> list[Sample]:
    """Samples of all slides of a manifest, at `mpp`.

    Raises
    ------
    DataError, SlideError, PointsError, RegionError
        If a file cannot be used, or points lie outside their slide or outside every region.
    """
    samples = [sample for clicked in read_manifest(path) for sample in samples_of(clicked, mpp, classes)]
    count = sum(int(_inside(s).sum()) for s in samples)
    if count < 2:
        raise PointsError(
            f"{path}: {count} clicked nuclei in all; click every nucleus of a region, 50 or more"
        )
    return samples


def _inside(sample: Sample) -> NDArray[np.bool_]:
    """Which of a sample's points lie in its region of interest."""
    assert sample.roi is not None
    within = Rect(0, 0, *sample.roi.shape).contains(sample.points)
    at = np.floor(sample.points[within]).astype(np.int64)
    within[within] = sample.roi[tuple(at.T)]
    return within


def samples_of(clicked: ClickedSlide, mpp: float, classes: Sequence[str] = ()) -> Iterator[Sample]:
    """Samples of one slide: the pieces of every region that holds points."""
    clicks = read_clicks(clicked.points)
    check_classes(clicks, classes)
    if not len(clicks.points):
        raise PointsError(
            f"{clicked.points}: no clicked nucleus; use QuPath's points tool, or a CSV with x,y"
        )
    regions = _regions_with_points(clicked, clicks)
    with closing(open_slide(clicked.slide)) as slide:
        view = PlanView(slide, resolve_mpp(slide, clicked.slide), mpp)
        check_inside(clicks, slide.shape, "slide")
        for number, region in enumerate(regions, 1):
            name = f"{Path(clicked.slide.path).name}, region {number}"
            for part in pieces(region, view):
                yield _sample(name, part, region, clicks, view, mpp)


def _regions_with_points(clicked: ClickedSlide, clicks: Clicks) -> list[Region]:
    try:
        regions = read_regions(clicked.regions)
    except RegionError as error:
        raise RegionError(f"{error}: it says where every nucleus is clicked") from error
    clicks.refuse(
        ~region_contains(regions, clicks.points),
        lambda i: f"{clicks.at(i)} lies outside every region of {clicked.regions.name}; draw one around it",
    )
    held = [region for region in regions if region_contains([region], clicks.points).any()]
    if len(held) < len(regions):
        log.warning("%s: %d regions without points are left out", clicked.regions, len(regions) - len(held))
    return held


def pieces(region: Region, view: PlanView) -> Iterator[Rect]:
    """Rectangles of at most `PIECE` pixels that cover a region, of about equal size, in plan pixels."""
    low = np.maximum(0, np.floor(region.exterior.min(0) / view.scale)).astype(int)
    high = np.minimum(view.shape, np.ceil(region.exterior.max(0) / view.scale)).astype(int)
    rows, columns = (
        np.linspace(a, b, -(-(b - a) // PIECE) + 1).round().astype(int).tolist()
        for a, b in zip(low, high, strict=True)
    )
    for y0, y1 in pairwise(rows):
        for x0, x1 in pairwise(columns):
            yield Rect(y0, x0, y1, x1)


def _sample(name: str, part: Rect, region: Region, clicks: Clicks, view: PlanView, mpp: float) -> Sample:
    """The sample of one piece; its margin shows context, and the points there bound the cells at its border."""
    outer, roi = surroundings(part, region, view)
    seen = clicks.take(outer.contains(clicks.points / view.scale))
    return Sample(
        f"{name}, ({part.x0}, {part.y0})",
        view.read(outer),
        mpp,
        seen.points / view.scale - (outer.y0, outer.x0),
        roi,
        classes=seen.classes,
    )


def surroundings(part: Rect, region: Region, view: PlanView) -> tuple[Rect, NDArray[np.bool_]]:
    """A piece with its margin, in plan pixels, and (H, W) which of these belong to the piece and its region."""
    outer = part.grow(MARGIN)
    moved = Region(
        region.exterior / view.scale - (outer.y0, outer.x0),
        tuple(hole / view.scale - (outer.y0, outer.x0) for hole in region.holes),
    )
    roi = np.zeros(outer.shape, bool)
    inner = part.slices((outer.y0, outer.x0))
    roi[inner] = region_mask([moved], outer.shape, scale=1)[inner]
    return outer, roi
