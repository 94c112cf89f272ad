"""`wsiseg plan`: what a run would have to do, without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._options import DEFAULT_MODEL, Model, NoBounds, SlideMpp, TileSize
from wsiseg.cli._report import reported, speak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsiseg.survey import Survey


@reported
def plan(
    slide: Annotated[
        str, typer.Argument(help="A slide: any file or folder that a reader opens.", show_default=False)
    ],
    model: Model = DEFAULT_MODEL,
    slide_mpp: SlideMpp = None,
    roi: Annotated[Path | None, typer.Option(help="GeoJSON file of annotations from QuPath.")] = None,
    tile_size: TileSize = 1536,
    no_bounds: NoBounds = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show a slide's size and scale, its tissue, and what it would take to segment it.

    [bold]Example[/bold]

    wsiseg plan slide.svs
    """
    speak(quiet=False, verbose=False)
    from wsiseg.estimate import estimate
    from wsiseg.execute import cores
    from wsiseg.models import describe, find_model
    from wsiseg.slides.slide import SlideRef
    from wsiseg.survey import survey

    found = survey(
        SlideRef(slide, mpp=slide_mpp, use_bounds=not no_bounds),
        describe(find_model(model)),
        tile_size=tile_size,
        roi=roi,
    )
    memory, seconds = estimate(found.plan, cores=cores())
    if as_json:
        print(json.dumps(facts(found, memory, seconds), ensure_ascii=False))
        return
    show(found, memory, seconds)


def facts(found: Survey, memory: float, seconds: float) -> dict[str, object]:
    """What `plan` found, for programs."""
    return {
        "slide": found.slide.path,
        "width": found.shape[1],
        "height": found.shape[0],
        "mpp": found.mpp,
        "level": found.level,
        "levels": found.levels,
        "model_mpp": found.plan.mpp,
        "plan_width": found.plan.shape[1],
        "plan_height": found.plan.shape[0],
        "tissue_mm2": found.tissue_mm2,
        "regions": len(found.regions),
        "tile_size": found.plan.core,
        "halo": found.plan.halo,
        "tiles": found.plan.n_tiles,
        "tasks": len(found.plan.tasks),
        "memory_bytes": round(memory),
        "cpu_seconds": round(seconds),
        "properties": dict(found.properties),
    }


def show(found: Survey, memory: float, seconds: float) -> None:
    """Print a table of what `plan` found."""
    from rich.console import Console
    from rich.table import Table

    height, width = found.shape
    plan_height, plan_width = found.plan.shape
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "slide": found.slide.path,
        "size": f"{width:,} x {height:,} px",
        "area": f"{width * found.mpp / 1e3:.2f} x {height * found.mpp / 1e3:.2f} mm",
        "scale": f"{found.mpp:.4g} um/px",
        **said(found.properties),
        "read": f"level {found.level} of {found.levels}, resampled to {found.plan.mpp:.4g} um/px "
        f"({plan_width:,} x {plan_height:,} px)",
        "tissue": f"{found.tissue_mm2:,.4g} mm2, pieces: {len(found.regions)}",
        "tiles": f"{found.plan.n_tiles:,} of {found.plan.core} px with a halo of {found.plan.halo}",
        "memory": f"about {memory / 1e9:.1f} GB",
        "time": f"about {readable(seconds)} on this machine's processors",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


def said(properties: Mapping[str, str]) -> dict[str, str]:
    """Scanner and objective, where the file names them.

    >>> said({"openslide.vendor": "aperio", "openslide.objective-power": "20", "openslide.level-count": "3"})
    {'vendor': 'aperio', 'objective': '20'}
    """
    wanted = {"vendor": "vendor", "objective-power": "objective"}
    ends = {name.rpartition(".")[2]: value for name, value in properties.items() if value}
    return {word: ends[end] for end, word in wanted.items() if end in ends}


def readable(seconds: float) -> str:
    """A span of time as a person says it.

    >>> readable(40), readable(600), readable(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
