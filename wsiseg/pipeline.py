"""From a slide to its nuclei: the order of the stages.

    outputs checked -> model card -> slide, tissue, plan -> working store -> executor.map(segment_batch)
    -> each table committed as it arrives -> seams resolved -> inside the ROI -> level 0 -> exporters
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsiseg import execute, nuclei, plugins, stitch
from wsiseg.errors import ConfigError
from wsiseg.export import ExportInfo, check_outputs, exporter_for
from wsiseg.models import ModelCard, ModelRef, describe, find_model
from wsiseg.nuclei import NucleusTable
from wsiseg.progress import Progress, Watch
from wsiseg.regions import inside
from wsiseg.slides.slide import SlideRef
from wsiseg.store import WorkingStore, store_path, working_store
from wsiseg.survey import Survey, survey
from wsiseg.tiling import Tile
from wsiseg.worker import Job, segment_batch

log = logging.getLogger(__name__)

Work = Callable[[tuple[Tile, ...]], NucleusTable]
"""What a worker does with one task: nuclei of a run of tiles, in plan pixels. Pickled for processes."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What was found on a slide.

    nuclei : NucleusTable    level-0 pixels
    survey : Survey          the slide, its regions and the plan
    info : ExportInfo        what an exporter is told
    """

    nuclei: NucleusTable
    survey: Survey
    info: ExportInfo

    def write(self, path: str | Path) -> int:
        """Write the nuclei; the suffix chooses the format. Returns how many were written.

        Raises
        ------
        OutputError
            If no exporter has this suffix, or the file cannot be written.
        """
        return write(self, Path(path))


def segment_slide(
    slide: str | Path,
    *,
    model: str | Path = "he-points",
    outputs: Sequence[str | Path] = (),
    slide_mpp: float | None = None,
    roi: str | Path | None = None,
    use_bounds: bool = True,
    executor: str = "threads",
    workers: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    tile_size: int = 1024,
    threshold: float | None = None,
    min_area_um2: float | None = None,
    measure: Sequence[str] = ("shape",),
    work_dir: str | Path | None = None,
    overwrite: bool = False,
    progress: Watch | None = None,
) -> Result:
    """Find every nucleus of a slide.

    Parameters
    ----------
    slide
        Any file or folder that one of the readers opens.
    model
        Name of a bundled model, or a model folder.
    outputs
        Files to write; each suffix chooses a format (.geojson, .geojson.gz, .zip, .zarr). A run that was
        stopped goes on when the same first output is given again.
    slide_mpp
        Microns per level-0 pixel, where the file does not say or is wrong.
    roi
        GeoJSON file of regions drawn in QuPath; nuclei whose centroid lies outside are left out.
    use_bounds
        Whether the origin is the corner of the slide's bounds, as it is in QuPath.
    executor, workers
        Plug-in of `wsiseg.execute`, and how many workers it begins; None: what suits the executor.
    device
        auto, cpu, cuda or cuda:N.
    batch_size
        Tiles that the networks see at once; None: one on a CPU, a whole task on a GPU.
    tile_size
        Side of a tile without its halo, pixels at the model's mpp; a multiple of 64.
    threshold, min_area_um2
        Foreground probability and smallest nucleus, instead of the model's own.
    measure
        "shape", "stain" or both.
    work_dir
        Folder of the working store, instead of the first output's.
    overwrite
        Whether to replace outputs that exist, and an unfinished run of other settings.
    progress
        Called as tiles finish.

    Raises
    ------
    InputError
        If something that was given cannot be used; nothing has been written then.
    TaskError
        If a tile failed; what was finished is kept, and the same call goes on from there.

    Examples
    --------
    >>> result = segment_slide("slide.svs", outputs=["slide.geojson"])  # doctest: +SKIP
    >>> len(result.nuclei)  # doctest: +SKIP
    21403
    """
    began = time.time()
    files = [Path(output) for output in outputs]
    check_outputs(files, source=Path(slide), overwrite=overwrite)
    backend = plugins.load(execute, executor)
    settings = Settings(threshold, min_area, stain="stain" in check_measure(measure), batch=batch_size)
    folder = find_model(model)
    card = describe(folder)
    found = survey(
        SlideRef(str(slide), mpp=slide_mpp, use_bounds=use_bounds),
        card,
        tile_size=tile_size,
        roi=Path(roi) if roi else None,
    )
    if not found.plan.n_tiles:
        log.warning("%s: no tissue found%s; the result is empty", slide, " in the regions" if roi else "")
    count = workers or default_workers(executor)
    job = Job(
        slide=found.slide,
        model=ModelRef(card.recipe, str(folder), device),
        mpp=card.mpp,
        settings=settings,
        threads=max(1, cores() // count),
    )
    with open_store(files, work_dir, settings_of(job, card, found), replace=overwrite) as store:
        with start(backend, found, store, workers=count, threads=job.threads) as pool:
            compute(found.plan, partial(segment_batch, job), store, pool, progress)
        result = finish(found, card, store, began)
        for file in files:
            result.write(file)
        store.remove()
    return result


def compute(plan: TilePlan, work: Work, store: WorkingStore, pool: Executor, watch: Watch | None) -> None:
    """Have every task of `plan` that the store does not hold computed, and commit each as it arrives.

    Raises
    ------
    WsisegError
        What a task raised; everything that arrived before stays in the store.
    """
    done = store.done()
    left = [task for task in range(len(plan.tasks)) if task not in done]
    if done:
        log.info("%s: going on, %d of %d tasks are finished", store.path, len(done), len(plan.tasks))
    tiles = sum(len(plan.tasks[task]) for task in done)
    resumed, found, began = tiles, sum(len(table) for table in store.tables()), time.monotonic()
    for position, table in pool.map(work, (plan.tasks[task] for task in left)):
        store.commit(left[position], table)
        tiles, found = tiles + len(plan.tasks[left[position]]), found + len(table)
        if watch:
            rate = (tiles - resumed) / max(1e-9, time.monotonic() - began)
            watch(Progress(tiles, plan.n_tiles, found, rate))


def finish(found: Survey, card: ModelCard, store: WorkingStore, began: float) -> Result:
    """Resolve the seams, leave out what lies outside the ROI, scale to level 0."""
    tables = list(store.tables())
    seen = nuclei.concatenate(tables) if tables else nuclei.empty(card.mpp)
    resolved = stitch.resolve(seen, found.plan, bandwidth=float(card.settings.get("bandwidth", 1.5)))
    if found.roi:
        resolved = resolved.take(inside(found.roi, resolved.centroid * found.scale))
    level0 = to_level0(resolved, scale=found.scale, mpp=found.mpp)
    return Result(level0, found, export_info(found, card, level0, began))


def to_level0(table: NucleusTable, *, scale: float, mpp: float) -> NucleusTable:
    """The nuclei in level-0 pixels; `scale` is level-0 pixels per plan pixel."""
    return replace(
        table,
        mpp=mpp,
        centroid=table.centroid * scale,
        area=table.area * scale**2,
        vertices=(table.vertices * np.float32(scale)).astype(np.float32),
        embedding=None,
    )


def export_info(found: Survey, card: ModelCard, table: NucleusTable, began: float) -> ExportInfo:
    """What exporters are told beside the nuclei."""
    return ExportInfo(
        fingerprint=found.fingerprint,
        class_names=card.class_names,
        class_colors=card.class_colors,
        regions=found.regions,
        mpp=found.mpp,
        measurements=tuple(table.columns),
        provenance={
            "slide": Path(found.slide.path).name,
            "model": {"name": card.name, "hash": card.hash, "about": dict(card.about)},
            "settings": settings,
            "versions": {name: version(name) for name in ("wsiseg", "numpy", "torch")},
            "started": stamp(began),
            "finished": stamp(time.time()),
        },
    )
