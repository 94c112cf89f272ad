"""One bar: tiles done, tiles a second, nuclei found, time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsiseg.progress import Progress


@contextmanager
def bar(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Something that draws progress on stderr; None where it is no terminal or is to be quiet."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles  {task.fields[rate]:.1f}/s  {task.fields[nuclei]:,} nuclei "),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("reading", total=None, rate=0.0, nuclei=0)

        def show(now: Progress) -> None:
            drawn.update(
                task,
                description=now.stage,
                completed=now.done,
                total=now.total,
                nuclei=now.nuclei,
                rate=now.rate,
            )

        yield show
