"""`wsiseg cohort plan`: slides are looked at, and what is to be done is written down."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._names import names
from wsiseg.cli._options import (
    DEFAULT_MODEL,
    Cells,
    Flips,
    Measure,
    MinArea,
    Model,
    NoBounds,
    Quiet,
    Stains,
    Threshold,
    TileSize,
)
from wsiseg.cli._report import reported, say, speak


@reported
def plan(
    manifest: Annotated[
        str,
        typer.Argument(
            help="CSV file with the column slide and any of slide_mpp, roi, model, output; or a folder; or a pattern "
            "in quotes.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of results.", show_default=False)],
    model: Model = DEFAULT_MODEL,
    suffix: Annotated[
        str,
        typer.Option(
            help="What is written for each slide; nuclei are merged from .geojson, .geojson.gz, .zip and .zarr."
        ),
    ] = ".geojson",
    tile_size: TileSize = 1536,
    threshold: Threshold = None,
    min_area: MinArea = None,
    flips: Flips = 1,
    measure: Measure = None,
    stains: Stains = "estimate",
    cells: Cells = None,
    no_bounds: NoBounds = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add slides to a plan that exists, or correct some.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Look at every slide, estimate what it costs, and write the plan.

    What is wrong with a slide is said, and stops no other. Paths in a manifest are meant from its folder; roi is a GeoJSON
    file of regions, model a name or folder instead of --model, output a file below the folder of results.

    [bold]Examples[/bold]

    wsiseg cohort plan slides/ -o results

    wsiseg cohort plan slides.csv -o results --suffix .zarr --measure shape,stain
    """
    speak(quiet=quiet, verbose=False)
    from wsiseg.cli.plan import readable
    from wsiseg.cohort.manifest import read_manifest
    from wsiseg.cohort.plan import Options, make_plan, write_plan
    from wsiseg.deconvolution import read_stains
    from wsiseg.job import check_measures, make_settings
    from wsiseg.models import describe, find_model
    from wsiseg.tiling import check_tile_size

    if Path(model).is_dir():  # else a name; a path must be right from wherever a run is started
        model = str(Path(model).absolute())
    options = Options(
        *(model, suffix, tile_size, threshold, min_area, names(measure), not no_bounds),
        stains=str(Path(stains).absolute()) if Path(stains).is_file() else stains,
        cells_um=cells,
        flips=flips,
    )
    make_settings(describe(find_model(model)), threshold=threshold, min_area_um2=min_area, flips=flips)
    check_measures(options.measure, cells)
    read_stains(options.stains)
    check_tile_size(tile_size)
    with looking(quiet=quiet) as watch:
        made = make_plan(read_manifest(manifest), output.absolute(), options, watch=watch)
    made = write_plan(made, update=update)
    for slide in made.slides:
        if slide.problem and not quiet:
            say(f"warning: {slide.where}: {slide.problem}")
    seconds, mm2 = sum(s.seconds for s in made.good), sum(s.mm2 for s in made.good)
    bad = len(made.slides) - len(made.good)
    if not quiet:
        say(
            f"{output}: {len(made.good):,} slides, {mm2:,.1f} mm2 of tissue, about {readable(seconds)} on one processor"
            + (f"; {bad:,} cannot be segmented, as said above" if bad else "")
        )
    made.check_any()


@contextmanager
def looking(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of slides looked at; None where stderr is no terminal or is to be quiet."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("looking at slides", total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
