"""What there is to do on a slide: its size and scale, the tissue, the regions and the plan; no network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.deconvolution import StainChoice, Stains, estimated
from wsiseg.errors import RegionError
from wsiseg.geometry import Rect
from wsiseg.models import ModelCard
from wsiseg.regions import Region, crossed, read_regions, region_contains, region_coverage, trace_mask
from wsiseg.slides.opening import fingerprint, open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView, thumbnail
from wsiseg.slides.slide import Slide, SlideRef
from wsiseg.tiling import TilePlan, make_plan
from wsiseg.tissue import tissue_mask

RUN = 4
"""Tiles in a task: enough to keep a GPU busy, few enough that a stopped run loses seconds."""

UNLIKE = 0.02
"""Share by which a pixel size that is given may differ from the file's without a word."""

log = logging.getLogger(__name__)

SAMPLES, SAMPLE_PX, SAMPLE_MPP = 24, 256, 0.5
"""Squares in which stain vectors are estimated, their side in pixels, and the pixel's microns."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """A slide and what is to be done on it.

    slide : SlideRef
    fingerprint : str           of the file's content
    shape : (H, W)              of level 0, pixels
    mpp : float                 microns per level-0 pixel
    level : int                 that is read, of `levels`
    levels : int
    scale : float               level-0 pixels per plan pixel
    roi : tuple of Region       what was asked for; empty where everything is
    regions : tuple of Region   what is processed: the ROI, or else the tissue; level-0 pixels
    tissue : (h, w) bool        where the thumbnail has tissue, whatever the ROI
    tissue_mpp : float          microns per pixel of it
    tissue_mm2 : float          tissue, inside the ROI if there is one
    properties                  what the file says of itself
    plan : TilePlan
    stains : Stains or None     what pixels are unmixed by; None where nobody asked
    """

    slide: SlideRef
    fingerprint: str
    shape: tuple[int, int]
    mpp: float
    level: int
    levels: int
    scale: float
    roi: tuple[Region, ...]
    regions: tuple[Region, ...]
    tissue: NDArray[np.bool_]
    tissue_mpp: float
    tissue_mm2: float
    properties: Mapping[str, str]
    plan: TilePlan
    stains: Stains | None = None

    def processed(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of `points` (N, 2), as (y, x) in plan pixels, lie in what is processed: the ROI, or else the tissue.

        Tiles see more than that, and how much more depends on their size.
        """
        if self.roi:
            return region_contains(self.roi, points * self.scale)
        y, x = (points * (self.plan.mpp / self.tissue_mpp)).astype(np.int64).T
        height, width = self.tissue.shape
        return self.tissue[y.clip(0, height - 1), x.clip(0, width - 1)]


def survey(
    slide: SlideRef,
    card: ModelCard,
    *,
    tile_size: int = 1536,
    roi: Path | None = None,
    stains: StainChoice | None = None,
) -> Survey:
    """Look at a slide's thumbnail and decide which tiles a model is to see.

    Parameters
    ----------
    slide
        What to open.
    card
        Of the model: its mpp and its halo.
    tile_size
        Side of a core, plan pixels; a multiple of 64.
    roi
        GeoJSON file of regions, level-0 pixels; what lies inside is processed, all of it, and nothing else.
    stains
        Which stains are to be measured; vectors are estimated on all tissue, whatever the ROI.

    Raises
    ------
    SlideError
        If the slide cannot be read, or has no usable pixel size.
    RegionError
        If the regions cannot be read, or all lie outside the slide.
    ConfigError
        If the tile size is not allowed.
    """
    wanted = read_regions(roi) if roi else ()
    with closing(open_slide(slide)) as opened:
        mpp = resolve_mpp(opened, slide)
        if opened.mpp is not None and abs(mean(opened.mpp) / mpp - 1) > UNLIKE:
            log.warning(
                "%s: says %.4g um per pixel; %.4g is taken, as given", slide.path, mean(opened.mpp), mpp
            )
        if roi and not any(meets(region, opened.shape) for region in wanted):
            raise RegionError(
                f"{roi}: no region meets the slide, {opened.shape[1]} x {opened.shape[0]} pixels; "
                "they are meant in pixels of its full resolution, from its own corner"
            )
        view = PlanView(opened, mpp, card.mpp)
        picture, seen_mpp = thumbnail(opened, mpp)
        mask = tissue_mask(picture, mpp=seen_mpp)
        chosen = None if stains is None else stains.stains
        if stains is not None and stains.estimate:
            chosen = estimated(stains.stains, tissue_pixels(opened, mpp, mask, seen_mpp))
        share = region_coverage(wanted, mask.shape, scale=seen_mpp / mpp) if wanted else mask
        where = touched(wanted, share > 0, scale=seen_mpp / mpp) if wanted else mask
        return Survey(
            slide=slide,
            fingerprint=fingerprint(slide.path),
            shape=opened.shape,
            mpp=mpp,
            level=view.level,
            levels=len(opened.downsamples),
            scale=view.scale,
            roi=wanted,
            regions=wanted or trace_mask(mask, scale=seen_mpp / mpp),
            tissue=mask,
            tissue_mpp=seen_mpp,
            tissue_mm2=float((mask * share).sum()) * seen_mpp**2 / 1e6,
            properties=dict(opened.properties),
            plan=make_plan(
                view.shape,
                mpp=card.mpp,
                core=tile_size,
                halo=card.halo,
                run=RUN,
                keep=lambda core: any_inside(where, core, card.mpp / seen_mpp),
            ),
            stains=chosen,
        )


def meets(region: Region, shape: tuple[int, int]) -> bool:
    """Whether the bounding box of a region and an image of `shape` share a pixel."""
    low, high = region.exterior.min(0), region.exterior.max(0)
    return bool((high > 0).all() and (low < shape).all())


def touched(regions: Sequence[Region], inside: NDArray[np.bool_], *, scale: float) -> NDArray[np.bool_]:
    """Pixels that regions may meet: those `inside`, those on an edge, and all around them.

    A region may be smaller than a pixel, or thinner; `scale` is level-0 pixels per pixel.
    """
    where = inside | crossed(regions, inside.shape, scale=scale)
    return ndimage.binary_dilation(where, np.ones((3, 3), bool))


def tissue_pixels(
    slide: Slide, slide_mpp: float, mask: NDArray[np.bool_], seen_mpp: float
) -> NDArray[np.uint8]:
    """(N, 3) pixels of squares spread evenly over the tissue; the same of the same slide.

    Where a thumbnail's pixel is tissue, it mixes nuclei with what is between them: stains are told apart only
    where nuclei are larger than pixels.
    """
    view = PlanView(slide, slide_mpp, max(SAMPLE_MPP, slide_mpp))
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros((0, 3), np.uint8)
    middles = np.unique(((np.arange(SAMPLES) + 0.5) * len(rows) / SAMPLES).astype(np.int64))
    found = []
    for row, column in zip(rows[middles].tolist(), columns[middles].tolist(), strict=True):
        y, x = (int((at + 0.5) * seen_mpp / slide_mpp / view.scale) for at in (row, column))
        half = SAMPLE_PX // 2
        square = Rect(y - half, x - half, y + half, x + half).intersect(Rect(0, 0, *view.shape))
        found.append(view.read(square).reshape(-1, 3))
    return np.concatenate(found)


def any_inside(mask: NDArray[np.bool_], core: Rect, scale: float) -> bool:
    """Whether `mask` holds anything where `core` lies; `scale` is mask pixels per plan pixel.

    A mask pixel that is touched counts whole.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[1, 3] = True
    >>> any_inside(mask, Rect(0, 0, 64, 64), 1 / 32), any_inside(mask, Rect(0, 64, 64, 128), 1 / 32)
    (False, True)
    """
    y0, x0 = min(int(core.y0 * scale), mask.shape[0] - 1), min(int(core.x0 * scale), mask.shape[1] - 1)
    y1, x1 = int(np.ceil(core.y1 * scale)), int(np.ceil(core.x1 * scale))
    return bool(mask[y0:y1, x0:x1].any())
