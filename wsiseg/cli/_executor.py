"""Options of executors that reach beyond this machine, for every command that has one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Address = Annotated[
    str | None,
    typer.Option(help="Of a running Dask scheduler, for dask_address: tls://node7:8786.", show_default=False),
]
Certs = Annotated[
    Path | None,
    typer.Option(help="Folder of certificates, from wsiseg cohort certs.", show_default=False),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of what the executor is told, such as configs/slurm.toml for dask_slurm.",
        show_default=False,
    ),
]


def executor_options(address: str | None, certs: Path | None, cluster: Path | None) -> dict[str, Any]:
    """What an executor is told: the file's options, then those of the command line."""
    from wsiseg.execute._options import read_options

    given = read_options(cluster) if cluster else {}
    if address is not None:
        given["address"] = address
    if certs is not None:
        given["certs"] = str(certs)
    return given
