"""`wsiseg recipes`: the systems that can be trained."""

from __future__ import annotations

from wsiseg.cli._report import reported


@reported
def recipes() -> None:
    """The systems that can be trained: what each learns from, what it gives, and how good it was found to be.

    A configuration names its recipe; configs/ holds, for each, one as its paper has it and one for a processor.

    [bold]Example[/bold]

    wsiseg train configs/multi-task-small.toml --data ~/nuclei -o trained
    """
    from rich.console import Console
    from rich.table import Table

    from wsiseg.recipes._known import known

    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "learns from", "gives", "source", "AJI (authors) on MultiOrgan"):
        table.add_column(heading, overflow="fold")
    for each in known():
        table.add_row(each.name, each.labels_needed, each.gives, each.source, each.measured)
    Console().print(table)
