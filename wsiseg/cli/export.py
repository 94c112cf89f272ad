"""`wsiseg export`: a store into what other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._options import Quiet
from wsiseg.cli._report import reported, say, speak


@reported
def export(
    store: Annotated[Path, typer.Argument(help="OUT.zarr of an earlier run.", show_default=False)],
    output: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            help="File to write; its suffix is its format (see wsiseg formats). May be given several times.",
            show_default=False,
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the nuclei of a store again, in another format.

    [bold]Example[/bold]

    wsiseg export slide.zarr -o slide.geojson -o slide.csv
    """
    speak(quiet=quiet, verbose=False)
    from wsiseg.outputs import check_outputs, convert

    check_outputs(output, source=store, overwrite=overwrite)
    for path in output:
        count = convert(store, path)
        if not quiet:
            say(f"{path}: {count:,} nuclei")
