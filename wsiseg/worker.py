"""What a worker does with one task: read, predict, group, trace, claim; and, once seams are resolved, grow and measure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wsiseg import cells, measure, nuclei, polygons, predict
from wsiseg.errors import ConfigError, InputError, TaskError, brief
from wsiseg.flips import check_flips
from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.measure import AMBIGUOUS, MEASURES, Wanted
from wsiseg.models import ModelCard, ModelRef
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.slides.opening import open_slide
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import Slide, SlideRef
from wsiseg.tiling import Tile

log = logging.getLogger(__name__)

_slides: dict[str, Slide] = {}
_lock = threading.Lock()

Own = Callable[[NucleusTable, Tile], NucleusTable]
"""The nuclei of a tile that the tile claims."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How tiles become nuclei.

    threshold : float or None      foreground probability, instead of the model's own
    min_area : int or None         smallest nucleus in plan pixels, instead of the model's own
    batch : int or None            tiles that the networks see at once; None: what suits the device
    flips : int                    views of a tile that maps are averaged over (`wsiseg.flips`)
    """

    threshold: float | None = None
    min_area: int | None = None
    batch: int | None = None
    flips: int = 1


def make_settings(
    card: ModelCard,
    *,
    threshold: float | None = None,
    min_area_um2: float | None = None,
    batch_size: int | None = None,
    flips: int = 1,
) -> Settings:
    """Settings from what a person gives, checked.

    Raises
    ------
    ConfigError
        If one is outside its range.
    ModelError
        If this model cannot be asked for it.
    """
    check_range("threshold", threshold, 0, 1)
    check_range("min_area_um2", min_area_um2, 0, 10_000)
    check_range("batch_size", batch_size, 1, 1024)
    check_flips(flips, card.settings.get("coordinates"))
    return Settings(
        threshold=threshold,
        min_area=None if min_area_um2 is None else max(1, round(min_area_um2 / card.mpp**2)),
        batch=batch_size,
        flips=flips,
    )


def check_measures(names: Sequence[str], cells_um: float | None) -> None:
    """Refuse measurements and cells that nobody could make.

    Raises
    ------
    ConfigError
        If a measurement is unknown, or the cells' distance is outside its range.
    """
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"measure {name!r} is unknown; choose from {', '.join(MEASURES)}")
    check_range("cells_um", cells_um, 0.5, 25)


def check_range(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a setting outside its range; None is the default.

    Raises
    ------
    ConfigError
        Telling the range.
    """
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{name} {value:g} is not between {least:g} and {most:g}")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What all tasks of a run share, small and picklable.

    run : str                names this run; what is opened for it is closed with it
    slide : SlideRef
    slide_mpp : float        microns per level-0 pixel
    model : ModelRef
    mpp : float              of the plan
    own : function           (nuclei of a tile, tile) -> those that the tile claims
    settings : Settings
    threads : int            for torch, in every worker
    wanted : Wanted          what is measured once seams are resolved
    """

    run: str
    slide: SlideRef
    slide_mpp: float
    model: ModelRef
    mpp: float
    own: Own
    settings: Settings
    threads: int
    wanted: Wanted = field(default_factory=Wanted)


def segment_batch(job: Job, tiles: tuple[Tile, ...]) -> NucleusTable:
    """Nuclei that the tiles of one task claim, in plan pixels.

    Raises
    ------
    InputError
        If the slide or the model cannot be used.
    TaskError
        If anything else goes wrong; names the tiles.
    """
    try:
        slide, model = opened(job)
        view = PlanView(slide, job.slide_mpp, job.mpp)
        return segment_tiles(model, view, tiles, job.own, job.settings)
    except InputError:
        raise
    except TaskError as error:
        raise TaskError(f"{job.slide.path}: {error}") from error
    except Exception as error:
        raise TaskError(
            f"{job.slide.path}: tiles {tiles[0].index} to {tiles[-1].index}, from (y, x) = "
            f"({tiles[0].core.y0}, {tiles[0].core.x0}) of the plan: {brief(error)}"
        ) from error


def opened(job: Job) -> tuple[Slide, predict.Model]:
    """The slide and the model of a job, opened once a process.

    Only one thread tries readers or loads a model at a time: both change what the whole process shares.
    """
    with _lock:
        predict.use_threads(job.threads)
        return _slide(job), predict.load(job.model)


def _slide(job: Job) -> Slide:
    """The slide of a job, opened once a process; the lock is held."""
    if job.run not in _slides:
        _slides[job.run] = open_slide(job.slide)
    return _slides[job.run]


def release(job: Job) -> None:
    """Close the slide of a job in this process, if it is open."""
    with _lock:
        slide = _slides.pop(job.run, None)
    if slide is not None:
        slide.close()


def segment_tiles(
    model: predict.Model, view: PlanView, tiles: Sequence[Tile], own: Own, settings: Settings
) -> NucleusTable:
    """Nuclei that `tiles` claim, in the order of the tiles; no more maps are held than those of a batch."""
    size = settings.batch or (1 if model.device == "cpu" else len(tiles))
    batches = (tiles[i : i + size] for i in range(0, len(tiles), size))
    return nuclei.concatenate(
        [
            own(found, tile)
            for batch in batches
            for tile, found in zip(batch, segment_at_once(model, view, batch, settings), strict=True)
        ]
    )


def segment_at_once(
    model: predict.Model, view: PlanView, tiles: Sequence[Tile], settings: Settings
) -> list[NucleusTable]:
    """All nuclei seen in and around each of `tiles`; their pixels and maps are gone before the next are read."""
    images = np.stack([read_tile(view, tile) for tile in tiles])
    maps = model.predict(images, [(tile.outer.y0, tile.outer.x0) for tile in tiles], flips=settings.flips)
    return [
        segment_tile(model, image, seen, tile, view.shape, settings)
        for tile, image, seen in zip(tiles, images, maps, strict=True)
    ]


def read_tile(view: PlanView, tile: Tile) -> NDArray[np.uint8]:
    """(H, W, 3) pixels of a tile and its halo; what fails is tried once more, for a shared disk may stumble.

    Raises
    ------
    TaskError
        If it fails again; names the tile and what the reader said.
    """
    try:
        return view.read(tile.outer)
    except Exception as error:
        log.warning("tile %d: %s; reading it again", tile.index, error)
    try:
        return view.read(tile.outer)
    except Exception as error:
        raise TaskError(
            f"tile {tile.index}, from (y, x) = ({tile.core.y0}, {tile.core.x0}) of the plan, cannot be read: "
            f"{brief(error)}"
        ) from error


def segment_tile(
    model: predict.Model,
    image: NDArray[np.uint8],
    maps: Maps,
    tile: Tile,
    shape: tuple[int, int],
    settings: Settings,
) -> NucleusTable:
    """All nuclei that are seen in and around the core of one tile of a plan of `shape`, in plan pixels."""
    frame = tile.outer
    if maps.aligned:
        frame = tile.seen
        window = frame.slices((tile.outer.y0, tile.outer.x0))
        maps, image = maps.crop(window), image[window]
    labels, embedding = model.group(maps, frame, threshold=settings.threshold, min_area=settings.min_area)
    labels, embedding = inside(labels, embedding, frame, tile.seen.intersect(Rect(0, 0, *shape)))
    found = described(model, maps, labels, embedding, index=tile.index)
    return found.shift(frame.y0, frame.x0)


def described(
    model: predict.Model,
    maps: Maps,
    labels: NDArray[np.int32],
    embedding: NDArray[np.float32] | None,
    *,
    index: int = 0,
) -> NucleusTable:
    """The nuclei 1..n of a label image (H, W), in its pixels: outlines, class, probability, and what was ambiguous."""
    vertices, offsets = polygons.trace(labels)
    count = len(offsets) - 1
    centroid, area = measure.centroids(labels, count)
    scores = np.stack([measure.means(prob, labels, count) for prob in maps.prob], axis=1)
    score, card = scores.sum(axis=1), model.card
    if card.calibration is not None:
        solidity = measure.solidity(Rings(vertices, offsets))
        score = card.calibration.probability(score, area * card.mpp**2, solidity)
    doubted = model.ambiguous(maps, labels, count)
    return NucleusTable(
        mpp=card.mpp,
        centroid=centroid,
        area=area,
        score=score,
        label=scores.argmax(axis=1).astype(np.int32),
        tile=np.full(count, index, np.int32),
        vertices=vertices,
        offsets=offsets,
        columns={} if doubted is None else {AMBIGUOUS: doubted.astype(np.float32)},
        embedding=embedding,
    )


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
        with _lock:
            slide = _slide(job)
        return measured(here, PlanView(slide, job.slide_mpp, job.mpp), job.wanted)
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


def inside(
    labels: NDArray[np.int32], embedding: NDArray[np.float32] | None, frame: Rect, part: Rect
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Labels 1..n and their embeddings without what lies outside `part` of their frame.

    Where an image is mirrored at its border, a nucleus there is seen with its reflection: only half of that
    is real, and its centre would lie on the very border.
    """
    if part == frame:
        return labels, embedding
    window = part.slices((frame.y0, frame.x0))
    present = np.unique(labels[window])
    present = present[present > 0]
    number = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    number[present] = np.arange(1, len(present) + 1)
    clipped = np.zeros_like(labels)
    clipped[window] = number[labels[window]]
    return clipped, None if embedding is None else embedding[present - 1]
