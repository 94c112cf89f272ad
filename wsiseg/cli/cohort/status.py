"""`wsiseg cohort status` and `retry`: what is done, and what failed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._report import reported, say, speak
from wsiseg.cli.cohort._results import Results

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wsiseg.cohort.status import Status


@reported
def status(
    results: Results,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds, until all is done.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Name every slide, not only failed and running ones.")
    ] = False,
) -> None:
    """Show what is done, running, failed and left.

    [bold]Example[/bold]

    wsiseg cohort status results --watch
    """
    speak(quiet=False, verbose=False)
    from rich.console import Console
    from rich.live import Live

    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.status import status as look
    from wsiseg.errors import ConfigError

    made = read_plan(results.absolute())
    now = look(made)
    if as_json and watch:
        raise ConfigError("--json is told once; leave out --watch")
    if as_json:
        print(json.dumps(facts(now), ensure_ascii=False))
        return
    if not watch:
        Console().print(drawn(now, every=every))
        return
    with Live(drawn(now, every=every), auto_refresh=False) as live:
        while now.counts["running"] or now.counts["todo"]:
            time.sleep(5)
            now = look(made)
            live.update(drawn(now, every=every), refresh=True)


def facts(now: Status) -> dict[str, object]:
    """A cohort's state, for programs."""
    return {
        "counts": now.counts,
        "nuclei": now.nuclei,
        "mm2_per_hour": round(now.mm2_per_hour, 3),
        "seconds_left": None if now.seconds_left is None else round(now.seconds_left),
        "slides": [
            {
                "slide": row.slide.slide,
                "output": row.slide.output,
                "state": row.state,
                "nuclei": row.nuclei,
                "mm2": row.slide.mm2,
                "share": round(row.share, 3),
                "seconds": round(row.seconds, 1),
                "worker": row.who,
                "reason": row.reason,
            }
            for row in now.rows
        ],
    }


def drawn(now: Status, *, every: bool) -> RenderableType:
    """A cohort's state, for a person."""
    from rich.console import Group
    from rich.table import Table

    from wsiseg.cli.plan import readable

    left = f", about {readable(now.seconds_left)} left" if now.seconds_left is not None else ""
    counted = ", ".join(f"{number:,} {state}" for state, number in now.counts.items())
    line = f"{counted}; {now.nuclei:,} nuclei; {now.mm2_per_hour:,.1f} mm2/h{left}"
    rows = [row for row in now.rows if every or row.state in ("failed", "running") or row.share]
    rows = [row for row in rows if every or row.state != "done"]
    if not rows:
        return line
    table = Table(box=None, pad_edge=False)
    for name in ("slide", "state", "tiles", "nuclei", "worker or reason"):
        table.add_column(name, overflow="fold", justify="right" if name in ("tiles", "nuclei") else "left")
    for row in rows:
        table.add_row(
            row.slide.slide.rpartition("/")[2],
            row.state,
            f"{row.share:.0%}",
            f"{row.nuclei:,}",
            row.reason or row.who,
        )
    return Group(table, line)


@reported
def retry(
    results: Results,
    slides: Annotated[
        list[str] | None, typer.Argument(help="Slides by path or name.", show_default="all that failed")
    ] = None,
) -> None:
    """Have failed slides done again, by whichever `cohort run` comes next.

    [bold]Example[/bold]

    wsiseg cohort retry results
    """
    speak(quiet=False, verbose=False)
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.status import retry as again

    freed = again(read_plan(results.absolute()), slides or ())
    say(f"{len(freed)} slides to do again" + (f"; start wsiseg cohort run {results}" if freed else ""))
