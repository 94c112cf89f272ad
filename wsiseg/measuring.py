"""What a worker does once seams are resolved: grow cells and measure stains, on final outlines."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsiseg import cells, measure, nuclei
from wsiseg.errors import InputError, TaskError, brief
from wsiseg.geometry import Rect
from wsiseg.job import Job, slide_of
from wsiseg.measure import Wanted
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.slides.resample import PlanView

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """Nuclei of one tile, and those whose cells may meet theirs, plan pixels; outlines are final.

    own : NucleusTable
    others : Rings
    others_at : (N, 2)       their centroids
    """

    own: NucleusTable
    others: Rings
    others_at: NDArray[np.float64]


def measure_batch(job: Job, here: Neighbourhood) -> NucleusTable:
    """The own nuclei with the stains and the cells that are wanted, plan pixels.

    What is found depends on outlines and pixels alone, not on how the slide is cut.

    Raises
    ------
    InputError
        If the slide cannot be used.
    TaskError
        If anything else goes wrong; names the place.
    """
    at = here.own.bounds()[:, :2].min(0) if len(here.own) else (0, 0)
    try:
        return measured(here, PlanView(slide_of(job), job.slide_mpp, job.mpp), job.wanted)
    except InputError:
        raise
    except Exception as error:
        raise TaskError(
            f"{job.slide.path}: nuclei from (y, x) = ({at[0]:.0f}, {at[1]:.0f}) of the plan cannot be measured: "
            f"{brief(error)}"
        ) from error


def measured(here: Neighbourhood, view: PlanView, wanted: Wanted) -> NucleusTable:
    """The own nuclei with the stains and the cells that are wanted, plan pixels.

    Pixels belong to outlines that hold their centre. Nuclei are taken in the order of their centroids, so that
    one gets a pixel that several could have whichever tile looks.
    """
    own = here.own
    if not len(own):
        return own
    factor = 1 if wanted.cells_um is None else max(1, round(cells.MPP / own.mpp))
    distance = 0.0 if wanted.cells_um is None else wanted.cells_um / own.mpp
    frame = around(own, distance, factor)
    at = np.concatenate([own.centroid, here.others_at])
    order = np.lexsort((at[:, 1], at[:, 0]))
    mine = np.empty(len(order), np.int64)
    mine[order] = np.arange(len(order))
    mine = mine[: len(own)]
    rings = nuclei.together([own.rings, here.others]).take(order)
    parts: dict[str, NDArray[np.int32]] = {}
    if wanted.stains is not None:
        labels = cells.painted(rings, frame)
        parts = {"" if wanted.cells_um is None else "Nucleus": labels}
    grown_cells = None
    if wanted.cells_um is not None:
        whole = cells.cells(rings, frame, factor=factor, distance=distance, shape=view.shape)
        grown_cells = cell_rings(whole, mine, own, frame, factor)
        if parts:
            parts["Cytoplasm"] = np.where(labels > 0, 0, whole.repeat(factor, axis=0).repeat(factor, axis=1))
    columns = dict(own.columns)
    if wanted.stains is not None:
        rgb = read_again(view, frame)
        for part, where in parts.items():
            found = measure.stain_columns(rgb, where, len(order), wanted.stains, part=part)
            columns |= {name: values[mine] for name, values in found.items()}
    return replace(own, columns=columns, cells=grown_cells)


def around(own: NucleusTable, distance: float, factor: int) -> Rect:
    """What must be looked at to grow `own` by `distance`: as far again, for the neighbours that bound them.

    Its corners are multiples of `factor`, so that everybody grows cells on the same grid.
    """
    bounds, margin = own.bounds(), 2 * distance + 2 * factor
    low = np.floor((bounds[:, :2].min(0) - margin) / factor).astype(int) * factor
    high = np.ceil((bounds[:, 2:].max(0) + margin) / factor).astype(int) * factor
    return Rect(*low.tolist(), *high.tolist())


def read_again(view: PlanView, frame: Rect) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of a frame; what fails is tried once more, for a shared disk may stumble."""
    try:
        return view.read(frame)
    except Exception as error:
        log.warning("%s; reading it again", error)
        return view.read(frame)


def cell_rings(
    whole: NDArray[np.int32], mine: NDArray[np.int64], own: NucleusTable, frame: Rect, factor: int
) -> Rings:
    """Outlines of the cells `mine` among labels, whose pixels are `factor` wide; one without a pixel is its nucleus."""
    present = np.unique(whole)
    present = present[present > 0]
    dense = np.zeros(int(whole.max(initial=0)) + 2, np.int32)
    dense[present] = np.arange(1, len(present) + 1)
    traced = cells.trace_cover(dense[whole]).moved(np.array([frame.y0, frame.x0], float), scale=factor)
    every = nuclei.together([traced, own.rings])
    label = dense[np.minimum(mine + 1, len(dense) - 1)]
    return every.take(np.where(label > 0, label - 1, len(traced) + np.arange(len(own))))
