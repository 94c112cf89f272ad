"""Nuclei that were corrected in QuPath, as training samples.

A file is what QuPath exports of an image whose nuclei wsiseg found: detections that stayed, those that somebody drew
anew as small annotations, and points where a nucleus was missed; deleted ones are not in it. An annotation of more than
`LARGEST_NUCLEUS` is an area, and says: in here all nuclei are right now. Locked areas are wsiseg's own and say nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from skimage.draw import polygon

from wsiseg.clicked_slides import pieces, surroundings
from wsiseg.errors import PointsError, RegionError
from wsiseg.features import Geometry, read_geometries
from wsiseg.geometry import Rect
from wsiseg.points import Clicks, check_classes, check_inside
from wsiseg.regions import Region, region_contains, regions_of
from wsiseg.samples import Sample
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef

log = logging.getLogger(__name__)

LARGEST_NUCLEUS = 1000.0
"""Square microns; a larger annotation is an area in which nuclei were corrected."""

HELD_OUT = 0.25
"""Share of the corrected nuclei of a piece that is kept back, to see whether what was learned holds."""

FEWEST = 12
"""Corrected nuclei of a piece from which some are kept back."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """A slide, and the GeoJSON file of its corrected nuclei."""

    slide: SlideRef
    file: Path


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """Corrected nuclei of a slide, level-0 pixels.

    clicks : Clicks                their middles and classes
    outlines : tuple of N          shapely polygons in (y, x), None where there is a point alone
    """

    clicks: Clicks
    outlines: tuple[shapely.Polygon | None, ...]


def read_corrections(
    corrected: Sequence[Corrected], *, mpp: float, classes: Sequence[str] = ()
) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from, and what of them is held out: the same pixels, but other parts of their regions.

    Parameters
    ----------
    mpp
        Of the samples.
    classes
        What nuclei may be classified as; anything, where it is empty.

    Raises
    ------
    SlideError, PointsError, RegionError
        If a slide or file cannot be used, or no nucleus lies in a corrected area.
    """
    every = [sample for one in corrected for sample in _samples(one, mpp, classes)]
    divided = [_divided(sample) for sample in every]
    taught = [taught for taught, _ in divided]
    return taught, [held for _, held in divided if held is not None]


def _samples(corrected: Corrected, mpp: float, classes: Sequence[str]) -> list[Sample]:
    samples = []
    with closing(open_slide(corrected.slide)) as slide:
        view = PlanView(slide, resolve_mpp(slide, corrected.slide), mpp)
        regions, nuclei = read_nuclei(corrected.file, mpp=mpp / view.scale)
        check_classes(nuclei.clicks, classes)
        check_inside(nuclei.clicks, slide.shape, "slide")
        for number, region in enumerate(regions, 1):
            if not region_contains([region], nuclei.clicks.points).any():
                log.warning("%s: area %d holds no nucleus: all of it is background", corrected.file, number)
            name = f"{Path(corrected.slide.path).name}, area {number}"
            samples += [_sample(name, part, region, nuclei, view, mpp) for part in pieces(region, view)]
    return samples


def read_nuclei(path: Path, *, mpp: float) -> tuple[tuple[Region, ...], Nuclei]:
    """The corrected areas of a file and the nuclei in them; `mpp` is of the slide's level 0.

    A nucleus that was drawn anew takes the place of what it covers by half, and a point on an outlined nucleus adds
    nothing.

    Raises
    ------
    RegionError
        If the file cannot be read, or holds no corrected area.
    PointsError
        If there is no nucleus in any of them.
    """
    try:
        geometries = read_geometries(path)
        areas, drawn = _areas_and_drawn(geometries, LARGEST_NUCLEUS / mpp**2)
        found = [
            (g, shape) for g in geometries if g.object_type in ("detection", "cell") for shape in _shapes(g)
        ]
        points = [(g, corner) for g in geometries if g.object_type == "annotation" for corner in _points(g)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RegionError(f"{path}: cannot be read as GeoJSON of nuclei ({error})") from error
    if not areas:
        raise RegionError(
            f"{path}: no corrected area; draw an annotation of more than {LARGEST_NUCLEUS:g} um2 around what you "
            "corrected, and export all objects"
        )
    outlined = drawn + _not_covered(found, drawn)
    middles = [(g, _middle(shape), shape) for g, shape in outlined]
    tree = shapely.STRtree([shape for _, shape in outlined])
    middles += [(g, at, None) for g, at in points if not len(tree.query(shapely.Point(at), "intersects"))]
    where = np.array([at for _, at, _ in middles], np.float64).reshape(-1, 2)
    inside = region_contains(areas, where)
    if not inside.any():
        raise PointsError(
            f"{path}: no nucleus lies in a corrected area; export detections and annotations alike"
        )
    clicks = Clicks(
        path,
        where,
        tuple(g.class_name for g, _, _ in middles),
        tuple(f"feature {g.feature}" for g, _, _ in middles),
    )
    return areas, Nuclei(clicks, tuple(shape for _, _, shape in middles))


Drawn = list[tuple[Geometry, shapely.Polygon]]


def _areas_and_drawn(geometries: Sequence[Geometry], largest: float) -> tuple[tuple[Region, ...], Drawn]:
    """Annotations of more than `largest` square pixels, and the others: nuclei that somebody drew."""
    areas: list[Region] = []
    drawn: Drawn = []
    for geometry in geometries:
        if geometry.object_type != "annotation" or geometry.locked:
            continue
        for region, shape in zip(regions_of([geometry]), _shapes(geometry), strict=True):
            if shape.area > largest:
                areas.append(region)
            else:
                drawn.append((geometry, shape))
    return tuple(areas), drawn


def _shapes(geometry: Geometry) -> list[shapely.Polygon]:
    """Polygons of a geometry in (y, x), without their holes, made valid."""
    return [_valid(shapely.Polygon(region.exterior)) for region in regions_of([geometry])]


def _valid(shape: shapely.Polygon) -> shapely.Polygon:
    if shape.is_valid:
        return shape
    parts = [p for p in shapely.get_parts(shapely.make_valid(shape)) if p.geom_type == "Polygon"]
    if not parts:
        raise ValueError("a ring without an area")
    return max(parts, key=lambda part: float(part.area))


def _points(geometry: Geometry) -> list[tuple[float, float]]:
    """(y, x) of each point."""
    corners = {"Point": [geometry.coordinates], "MultiPoint": geometry.coordinates}.get(geometry.kind, [])
    return [(float(y), float(x)) for x, y, *_ in corners]


def _middle(shape: shapely.Polygon) -> tuple[float, float]:
    """The centroid where it lies inside, else a point that does."""
    at = shape.centroid if shape.contains(shape.centroid) else shape.representative_point()
    return at.x, at.y


def _not_covered(found: Drawn, drawn: Drawn) -> Drawn:
    """Detections of which no drawn nucleus covers half, nor they half of it."""
    if not drawn:
        return found
    tree = shapely.STRtree([shape for _, shape in drawn])
    kept = []
    for geometry, shape in found:
        others = [drawn[i][1] for i in tree.query(shape, "intersects")]
        common = [shape.intersection(o).area / min(shape.area, o.area) for o in others]
        if max(common, default=0.0) <= 0.5:
            kept.append((geometry, shape))
    return kept


def _sample(name: str, part: Rect, region: Region, nuclei: Nuclei, view: PlanView, mpp: float) -> Sample:
    """The sample of one piece of a region, with the outlines of its nuclei."""
    outer, roi = surroundings(part, region, view)
    corner = np.array([outer.y0, outer.x0])
    seen = outer.contains(nuclei.clicks.points / view.scale)
    outlines = np.zeros(outer.shape, np.int32)
    for number, index in enumerate(np.flatnonzero(seen).tolist(), 1):
        shape = nuclei.outlines[index]
        if shape is not None:
            # Pixel centres lie at halves; `polygon` has them at integers.
            y, x = (np.array(shape.exterior.coords) / view.scale - corner - 0.5).T
            outlines[polygon(y, x, outer.shape)] = number
    clicks = nuclei.clicks.take(seen)
    return Sample(
        f"{name}, ({part.x0}, {part.y0})",
        view.read(outer),
        mpp,
        clicks.points / view.scale - corner,
        roi,
        classes=clicks.classes,
        outlines=outlines,
    )


def _divided(sample: Sample) -> tuple[Sample, Sample | None]:
    """A sample with a band of its region taken off, and that band; None where there are too few nuclei for one."""
    assert sample.roi is not None
    at = np.floor(sample.points).astype(np.int64)
    own = sample.points[sample.roi[tuple(at.T)]]
    if len(own) < FEWEST:
        return sample, None
    y, x = np.nonzero(sample.roi)
    axis = int(np.ptp(x) > np.ptp(y))
    cut = int(np.quantile(own[:, axis], 1 - HELD_OUT))
    beyond = np.arange(sample.roi.shape[axis]) >= cut
    band = sample.roi & (beyond[None, :] if axis else beyond[:, None])
    return replace(sample, roi=sample.roi & ~band), replace(sample, roi=band)
