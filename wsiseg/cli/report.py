"""`wsiseg report`: one page about a slide, or about a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._options import SlideMpp
from wsiseg.cli._report import reported, say


@reported
def report(
    of: Annotated[
        str,
        typer.Argument(
            metavar="SLIDE or COHORT",
            help="A slide, or the folder of a cohort's results.",
            show_default=False,
        ),
    ],
    store: Annotated[
        Path | None, typer.Argument(help="OUT.zarr of the slide; none for a cohort.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; else it lies beside the results.")
    ] = None,
    slide_mpp: SlideMpp = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
) -> None:
    """One page that needs nothing else: pictures, numbers, and what a person should look at.

    For a slide: tissue and density, outlines at random and at the least sure places, histograms, checks of focus, ink,
    empty tissue, density and pixel size, and how it was made. For a cohort: a table to sort, with what stands out.

    wsiseg report slide.svs slide.zarr -o slide.html

    wsiseg report results -o results.html
    """
    from wsiseg.errors import ConfigError, OutputError
    from wsiseg.outputs import write_text
    from wsiseg.slides.slide import SlideRef

    cohort = (Path(of) / ".cohort").is_dir()
    if cohort and store is not None:
        raise ConfigError(f"{of}: a cohort; it takes no store beside it")
    if not cohort and store is None:
        raise ConfigError(f"{of}: no cohort; a slide takes its store too: wsiseg report SLIDE OUT.zarr")
    path = output or (Path(of) / "report.html" if store is None else store.with_suffix(".html"))
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists; give --overwrite, or another -o")
    if store is None:
        from wsiseg.report.cohort import report_cohort

        text = report_cohort(Path(of))
    else:
        from wsiseg.report.slide import report_slide

        text, _, found = report_slide(SlideRef(of, mpp=slide_mpp), store)
        for check in found:
            say(f"{check.name}: {check.said}" + (" (look)" if check.state == "look" else ""))
    write_text(path, text)
    say(f"{path}: {len(text) / 1e6:.1f} MB")
