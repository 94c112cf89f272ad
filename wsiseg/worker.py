"""What a worker does with one task: read, predict, group, trace, claim."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsiseg import measure, nuclei, polygons, predict
from wsiseg.errors import InputError, TaskError, brief
from wsiseg.geometry import Rect
from wsiseg.job import Job, Own, Settings, opened
from wsiseg.maps import Maps
from wsiseg.measure import AMBIGUOUS
from wsiseg.memory import give_back
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.slides.resample import PlanView
from wsiseg.tiling import Tile

log = logging.getLogger(__name__)


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
        found = segment_tiles(model, view, tiles, job.own, job.settings)
        give_back(beyond=job.memory)
        return found
    except InputError:
        raise
    except TaskError as error:
        raise TaskError(f"{job.slide.path}: {error}") from error
    except Exception as error:
        raise TaskError(
            f"{job.slide.path}: tiles {tiles[0].index} to {tiles[-1].index}, from (y, x) = "
            f"({tiles[0].core.y0}, {tiles[0].core.x0}) of the plan: {brief(error)}"
        ) from error


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
