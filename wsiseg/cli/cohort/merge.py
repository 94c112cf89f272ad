"""`wsiseg cohort merge`: one table of all slides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._report import reported, say, speak
from wsiseg.cli.cohort._results import Results


@reported
def merge(
    results: Results,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Parquet file of slides.", show_default=False)
    ],
    nuclei: Annotated[
        Path | None, typer.Option(help="Parquet file of all nuclei, as well.", show_default="none")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write one table of the cohort: a row a slide; with --nuclei another, a row a nucleus.

    [bold]Example[/bold]

    wsiseg cohort merge results -o cohort.parquet --nuclei nuclei.parquet
    """
    speak(quiet=False, verbose=False)
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.tables import write_nuclei, write_slides
    from wsiseg.errors import OutputError
    from wsiseg.outputs import check_folder

    made = read_plan(results.absolute())
    if nuclei is not None and nuclei.absolute() == output.absolute():
        raise OutputError(f"{output}: is given for slides and for nuclei; choose two names")
    for path in (output, nuclei):
        if path is not None:
            if path.suffix.lower() != ".parquet":
                raise OutputError(f"{path}: the table is written as .parquet; choose such a name")
            if path.exists() and not overwrite:
                raise OutputError(f"{path}: exists; give --overwrite to replace it, or choose another name")
            check_folder(path)
    say(f"{output}: {write_slides(made, output):,} slides")
    if nuclei is not None:
        say(f"{nuclei}: {write_nuclei(made, nuclei):,} nuclei")
