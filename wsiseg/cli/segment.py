"""`wsiseg segment`: a slide in, its nuclei out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._executor import Address, Certs, Cluster, executor_options
from wsiseg.cli._names import names
from wsiseg.cli._options import (
    DEFAULT_MODEL,
    Cells,
    Device,
    Flips,
    Measure,
    MinArea,
    Model,
    NoBounds,
    Quiet,
    SlideMpp,
    Stains,
    Threshold,
    TileSize,
    Verbose,
    Workers,
)
from wsiseg.cli._progress import bar
from wsiseg.cli._report import INTERRUPTED, reported, say, speak


@reported
def segment(
    slide: Annotated[
        str, typer.Argument(help="A slide: any file or folder that a reader opens.", show_default=False)
    ],
    output: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            help="File to write; its suffix is its format (see wsiseg formats). May be given several times.",
            show_default=False,
        ),
    ],
    model: Model = DEFAULT_MODEL,
    slide_mpp: SlideMpp = None,
    roi: Annotated[
        Path | None,
        typer.Option(
            help="GeoJSON file of annotations from QuPath; all that lies inside is segmented, and nothing else."
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where tiles are computed: threads, dask_local, dask_slurm or dask_address.")
    ] = "threads",
    workers: Workers = None,
    address: Address = None,
    certs: Certs = None,
    cluster: Cluster = None,
    device: Device = "auto",
    batch_size: Annotated[
        str, typer.Option(help="Tiles that the networks see at once: auto or a number.")
    ] = "auto",
    tile_size: TileSize = 1536,
    threshold: Threshold = None,
    min_area: MinArea = None,
    flips: Flips = 1,
    measure: Measure = None,
    stains: Stains = "estimate",
    cells: Cells = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder for what an unfinished run keeps, instead of the output's.")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace outputs that exist, and an unfinished run of other settings."
        ),
    ] = False,
    no_bounds: NoBounds = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find every nucleus of a slide and write it as a polygon.

    A run that was stopped goes on where it was when the same command is given again.

    [bold]Examples[/bold]

    wsiseg segment slide.svs -o slide.geojson

    wsiseg segment slide.svs -o slide.zip -o slide.zarr --roi tumour.geojson

    wsiseg segment slide.svs -o slide.geojson --measure shape,stain,context --cells 5

    wsiseg segment scan.tif -o scan.geojson.gz --slide-mpp 0.25 --executor dask_local --workers 4
    """
    speak(quiet=quiet, verbose=verbose)
    from wsiseg.pipeline import segment_slide
    from wsiseg.store import store_path

    began = time.monotonic()
    try:
        with bar(quiet=quiet) as show:
            result = segment_slide(
                slide,
                outputs=output,
                model=model,
                slide_mpp=slide_mpp,
                roi=roi,
                use_bounds=not no_bounds,
                executor=executor,
                workers=workers,
                executor_options=executor_options(address, certs, cluster),
                device=device,
                batch_size=batch_of(batch_size),
                tile_size=tile_size,
                threshold=threshold,
                min_area_um2=min_area,
                flips=flips,
                measure=names(measure),
                stains=stains,
                cells_um=cells,
                work_dir=work_dir,
                overwrite=overwrite,
                in_memory=False,
                progress=show,
            )
    except KeyboardInterrupt as error:
        kept = store_path(output[0], work_dir)
        say(
            f"interrupted; what is finished is kept in {kept}, and the same command goes on from there"
            if kept.exists()
            else "interrupted; nothing was finished yet"
        )
        raise typer.Exit(INTERRUPTED) from error
    if not quiet:
        survey = result.survey
        say(
            f"{', '.join(map(str, output))}: {result.count:,} nuclei, {survey.plan.n_tiles:,} tiles, "
            f"{survey.tissue_mm2:,.4g} mm2 of tissue, {time.monotonic() - began:.0f} s"
        )
        if len(result.classes) > 1:
            say(shares(result.classes))


def shares(classes: Mapping[str, int]) -> str:
    """Nuclei of each class, and of all, in words.

    >>> shares({"Positive": 30, "Negative": 90})
    'Positive 30 (25.0 %), Negative 90 (75.0 %)'
    """
    total = max(1, sum(classes.values()))
    return ", ".join(f"{name} {count:,} ({100 * count / total:.1f} %)" for name, count in classes.items())


def batch_of(text: str) -> int | None:
    """Tiles in a batch; None for `auto`.

    Raises
    ------
    ConfigError
        If it is neither `auto` nor a positive number.
    """
    from wsiseg.errors import ConfigError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch-size {text}: give auto or a whole number from 1")
    return int(text)
