"""From a slide to its nuclei: the order of the stages.

outputs checked -> model card -> slide, tissue, plan -> working store -> executor.map(segment_batch)
-> each table committed as it arrives -> row by row of the grid: seams resolved, inside the ROI, measured, level 0, merged
-> exporters read the merged nuclei piece by piece. No stage holds the nuclei of a whole slide.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from wsiseg import execute, plugins
from wsiseg.checks import check_range
from wsiseg.computing import begun_once, compute
from wsiseg.deconvolution import read_stains
from wsiseg.estimate import process_memory
from wsiseg.execute import cores
from wsiseg.export import remove_leftovers
from wsiseg.export.zarr import read_store
from wsiseg.job import Job, check_measures, make_settings, release
from wsiseg.measure import Wanted
from wsiseg.memory import give_back
from wsiseg.models import DEFAULT, ModelCard, ModelRef, describe, find_model
from wsiseg.nuclei import NucleusTable, concatenate, empty
from wsiseg.outputs import check_outputs, convert
from wsiseg.progress import Progress, Watch
from wsiseg.regions import Region
from wsiseg.result import Result, about, class_counts, merge, stamp
from wsiseg.slides.slide import SlideRef
from wsiseg.stitch import claim, computed_cores
from wsiseg.store import WorkingStore, store_path, working_store
from wsiseg.survey import Survey, survey
from wsiseg.version import __version__
from wsiseg.worker import segment_batch

log = logging.getLogger(__name__)


def segment_slide(
    slide: str | Path,
    *,
    model: str | Path = DEFAULT,
    outputs: Sequence[str | Path] = (),
    slide_mpp: float | None = None,
    roi: str | Path | None = None,
    use_bounds: bool = True,
    executor: str = "threads",
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    tile_size: int = 1536,
    threshold: float | None = None,
    min_area_um2: float | None = None,
    flips: int = 1,
    measure: Sequence[str] = ("shape",),
    stains: str = "estimate",
    cells_um: float | None = None,
    work_dir: str | Path | None = None,
    overwrite: bool = False,
    in_memory: bool = True,
    keep_store: bool = False,
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
        Files to write; each suffix chooses a format (.geojson, .zarr, .csv and more, `wsiseg.export.formats`).
        A run that was stopped goes on when the same first output is given again.
    slide_mpp
        Microns per level-0 pixel, where the file does not say or is wrong.
    roi
        GeoJSON file of regions drawn in QuPath; nuclei whose centroid lies outside are left out.
    use_bounds
        Whether the origin is the corner of the slide's bounds, as it is in QuPath.
    executor, workers
        Plug-in of `wsiseg.execute`, and how many workers it begins; None: what suits the executor.
    executor_options
        What that plug-in takes, such as `address` of `dask_address`.
    device
        auto, cpu, cuda or cuda:N.
    batch_size
        Tiles that the networks see at once; None: one on a CPU, a whole task on a GPU.
    tile_size
        Side of a tile without its halo, pixels at the model's mpp; a multiple of 64.
    threshold, min_area_um2
        Foreground probability and smallest nucleus, instead of the model's own.
    flips
        1, 4 or 8 views of every tile, flipped and turned, that are averaged: as many times as long, somewhat
        better outlines (`benchmarks/accuracy/README.md`).
    measure
        Any of "shape", "stain" and "context".
    stains
        Which stains are measured: "estimate" or "estimate-h-dab" (vectors of this slide, Macenko et al. 2009),
        "h-e" or "h-dab" (QuPath's defaults), six numbers, or QuPath's JSON (`wsiseg.deconvolution.read_stains`).
    cells_um
        Grow a cell around every nucleus, by no more than this, bounded by its neighbours; None: nuclei alone.
    work_dir
        Folder of the working store, instead of the first output's.
    overwrite
        Whether to replace outputs that exist, and an unfinished run of other settings.
    in_memory
        Whether the result holds its nuclei: those of a large slide take gigabytes, and are in the outputs.
    keep_store
        Whether what a stopped run would go on from stays when all is written.
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
    >>> from PIL import Image
    >>> from skimage.data import immunohistochemistry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.fromarray(immunohistochemistry()[:200, :200]).save(f"{folder}/tissue.png")
    ...     result = segment_slide(f"{folder}/tissue.png", slide_mpp=0.5, tile_size=448)
    ...     count = result.write(f"{folder}/tissue.geojson")
    >>> 0 < count == len(result.nuclei)
    True
    """
    began = time.time()
    files = [Path(output) for output in outputs]
    check_outputs(files, source=Path(slide), overwrite=overwrite)
    check_range("workers", workers, 1, 1024)
    backend, options = plugins.load(execute, executor), dict(executor_options or {})
    backend.check(options)
    folder = find_model(model)
    card = describe(folder)
    settings = make_settings(
        card, threshold=threshold, min_area_um2=min_area_um2, batch_size=batch_size, flips=flips
    )
    check_measures(measure, cells_um)
    choice = read_stains(stains)
    found = survey(
        SlideRef(str(slide), mpp=slide_mpp, use_bounds=use_bounds),
        card,
        tile_size=tile_size,
        roi=Path(roi) if roi else None,
        stains=choice if "stain" in measure else None,
    )
    give_back(beyond=0)  # pictures of the whole slide are not needed any more
    log.info(
        "%s: %d x %d px of %.4g um, %.4g mm2 of tissue, %d tiles",
        *(slide, *found.shape[::-1], found.mpp, found.tissue_mm2, found.plan.n_tiles),
    )
    if not found.tissue_mm2:
        end = " in the regions; they are segmented all the same" if roi else "; the result is empty"
        log.warning("%s: no tissue%s", slide, end)
    count = workers or backend.default_workers(cores())
    job = Job(
        run=uuid4().hex,
        slide=found.slide,
        slide_mpp=found.mpp,
        model=ModelRef(card.recipe, str(folder), device),
        mpp=card.mpp,
        own=partial(claim, shape=found.plan.shape, computed=computed_cores(found.plan)),
        settings=settings,
        threads=backend.threads(cores(), count, options),
        wanted=Wanted("shape" in measure, "context" in measure, found.stains, cells_um),
        memory=process_memory(found.plan, tiles=(count if backend.ONE_PROCESS else 1) * (batch_size or 1)),
    )
    if found.stains:
        log.info("stains: %s", found.stains.facts())
    log.info("%s: %d workers of %d threads each, model %s", executor, count, job.threads, card.name)
    start = partial(backend.start, workers=count, threads_per_worker=job.threads, **options)
    decisive = settings_of(job, card, found)
    with open_store(files, work_dir, decisive, replace=overwrite) as store:
        try:
            with begun_once(start) as begin:
                for file in files:
                    remove_leftovers(file)
                claims = compute(found.plan, partial(segment_batch, job), store, begin, progress)
                times = {"began": stamp(began)}
                info = about(found, card, decisive, times)
                claims = chain(claims, ended(times))
                count = merge(store, claims, found, card, info, job=job, start=begin, watch=progress)
        finally:
            release(job)
        for number, file in enumerate(files):
            if progress:
                progress(Progress("writing", number, len(files), count, 0.0))
            convert(store.merged, file)
        info, nuclei = read_store(store.merged)
        table = concatenate([*nuclei] or [empty(card.mpp)]) if in_memory else None
        classes = {info.class_names[0]: count}
        if len(info.class_names) > 1:
            classes = class_counts(read_store(store.merged)[1], info.class_names)
        result = Result(count, classes, found, info, table)
        if not keep_store:
            store.remove()
    return result


def ended(times: dict[str, str]) -> Iterator[NucleusTable]:
    """Nothing; notes when it was asked for."""
    times["ended"] = stamp(time.time())
    yield from ()


@contextmanager
def open_store(
    files: Sequence[Path], work_dir: str | Path | None, settings: dict[str, object], *, replace: bool
) -> Iterator[WorkingStore]:
    """The working store of these outputs; without any, one that does not outlive the call."""
    if files:
        path = store_path(files[0], Path(work_dir) if work_dir else None)
        with working_store(path, settings, replace=replace) as store:
            yield store
        return
    with (
        tempfile.TemporaryDirectory(prefix="wsiseg-", dir=work_dir) as folder,
        working_store(Path(folder) / "store", settings) as store,
    ):
        yield store


def settings_of(job: Job, card: ModelCard, found: Survey) -> dict[str, object]:
    """Everything that the nuclei depend on: with the same, an unfinished run goes on."""
    return {
        "version": __version__,
        "slide": found.fingerprint,
        "slide_mpp": found.mpp,
        "use_bounds": found.slide.use_bounds,
        "model": card.hash,
        "mpp": card.mpp,
        "halo": found.plan.halo,
        "tile_size": found.plan.core,
        "roi": digest(found.roi),
        "threshold": job.settings.threshold,
        "min_area": job.settings.min_area,
        "flips": job.settings.flips,
        "measure": list(job.wanted.measures),
        "stains": None if job.wanted.stains is None else job.wanted.stains.facts(),
        "cells_um": job.wanted.cells_um,
    }


def digest(regions: Sequence[Region]) -> str | None:
    """A short name of regions that is theirs alone; None for none."""
    if not regions:
        return None
    rings = (ring.tobytes() + b"|" for region in regions for ring in (region.exterior, *region.holes))
    return sha256(b"".join(rings)).hexdigest()[:16]
