"""`wsiseg check`: whether QuPath reads a file whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._report import reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsiseg.qupath import Problem

SHOWN = 20
"""Problems of a file that are listed; a file that is wrong is often wrong a million times."""


@reported
def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="GeoJSON files: .geojson, .json, with .gz, or .zip.", show_default=False),
    ],
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing; the exit status tells.")] = False,
) -> None:
    """Hold files against every rule that QuPath's import has, and name the feature that breaks one.

    The exit status is 0 where QuPath (0.4 and newer) reads every file whole, 1 where it does not, and
    2 where a file cannot be opened.

    [bold]Example[/bold]

    wsiseg check slide.geojson other.zip
    """
    from wsiseg.qupath import check_file

    broken = False
    for path in files:
        problems = check_file(path)
        broken |= any(problem.severity == "error" for problem in problems)
        if not quiet:
            show(path, problems)
    if broken:
        raise typer.Exit(1)


def counted(number: int, what: str) -> str:
    """A number of things in words.

    >>> counted(1, "error"), counted(2, "error")
    ('1 error', '2 errors')
    """
    return f"{number} {what}" + "s" * (number != 1)


def show(path: Path, problems: Sequence[Problem]) -> None:
    """Print what is wrong with one file, or that nothing is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    errors = sum(problem.severity == "error" for problem in problems)
    told = counted(errors, "error"), counted(len(problems) - errors, "warning")
    title = f"{path}: {', '.join(told)}" if problems else f"{path}: good"
    console = Console(soft_wrap=True)
    console.print(title, markup=False, highlight=False)
    if not problems:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "feature", "what is wrong"):
        table.add_column(heading, overflow="fold")
    for problem in problems[:SHOWN]:
        table.add_row(problem.severity, escape(problem.feature), escape(problem.rule))
    console.print(table)
    if len(problems) > SHOWN:
        console.print(f"and {len(problems) - SHOWN} more", highlight=False)
