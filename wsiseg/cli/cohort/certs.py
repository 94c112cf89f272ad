"""`wsiseg cohort certs`: certificates of a Dask cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._report import reported, say, speak


@reported
def certs(
    folder: Annotated[
        Path,
        typer.Argument(help="Where certificates are to lie: a disk that the nodes see.", show_default=False),
    ],
    days: Annotated[int, typer.Option(help="For how long they are good.", min=1, max=3650)] = 365,
) -> None:
    """Make the certificates by which the processes of a Dask cluster know each other.

    [bold]Example[/bold]

    wsiseg cohort certs ~/.wsiseg/certs
    """
    speak(quiet=False, verbose=False)
    from wsiseg.execute._tls import make_certificates

    make_certificates(folder, days=days)
    say(f"{folder}: certificates for {days} days; whoever can read key.pem is let in")
