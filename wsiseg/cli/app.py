"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from wsiseg import __version__
from wsiseg.cli.benchmark import benchmark
from wsiseg.cli.calibrate import calibrate
from wsiseg.cli.check import check
from wsiseg.cli.cohort import cohort
from wsiseg.cli.draw import draw
from wsiseg.cli.evaluate import evaluate
from wsiseg.cli.export import export
from wsiseg.cli.formats import formats
from wsiseg.cli.plan import plan
from wsiseg.cli.pseudo_label import pseudo_label
from wsiseg.cli.recipes import recipes
from wsiseg.cli.report import report
from wsiseg.cli.segment import segment
from wsiseg.cli.train import train
from wsiseg.cli.view import view

app = typer.Typer(
    name="wsiseg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    segment,
    plan,
    export,
    formats,
    check,
    draw,
    view,
    report,
    pseudo_label,
    recipes,
    train,
    evaluate,
    calibrate,
    benchmark,
):
    app.command()(command)
app.add_typer(cohort, name="cohort")


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Every nucleus of a whole slide, as polygons that QuPath opens.

    [bold]Examples[/bold]

    wsiseg plan slide.svs                       what it would take

    wsiseg segment slide.svs -o slide.geojson   find the nuclei

    wsiseg check slide.geojson                  will QuPath read it whole?

    wsiseg view slide.svs slide.zarr            look at them in the browser

    wsiseg cohort plan slides/ -o results       many slides, on many machines
    """
