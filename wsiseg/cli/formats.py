"""`wsiseg formats`: what can be written."""

from __future__ import annotations

from wsiseg.cli._report import reported


@reported
def formats() -> None:
    """The formats that can be written: each is chosen by the suffix of -o; where several fit, by the longest.

    [bold]Example[/bold]

    wsiseg export slide.zarr -o slide.ome.zarr
    """
    from rich.console import Console
    from rich.table import Table

    from wsiseg import export

    table = Table(box=None, pad_edge=False)
    for heading in ("suffix", "what it is", "opened by", "needs"):
        table.add_column(heading, overflow="fold")
    for suffixes, about in export.formats():
        needs = (
            f"wsiseg[{about.extra}]: {'installed' if about.installed else 'missing'}"
            if about.extra
            else "nothing"
        )
        # Brackets would be taken for markup.
        table.add_row(" ".join(suffixes), about.what, about.opened_by, needs.replace("[", r"\["))
    Console().print(table)
