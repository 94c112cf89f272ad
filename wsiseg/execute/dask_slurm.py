"""Tasks through Dask workers that are Slurm jobs of their own.

The scheduler runs here; the workers come as Slurm starts them, and go when the run is over. All of them speak TLS and
to none that has not their certificate.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dask_jobqueue.slurm import SLURMCluster
from distributed import Client

from wsiseg.errors import ConfigError
from wsiseg.execute._dask import DaskPool, pool_of, worker_environment
from wsiseg.execute._options import options_of
from wsiseg.execute._tls import security

ONE_PROCESS = False

CERTIFICATES = "~/.wsiseg/certs"


@dataclass(frozen=True, slots=True)
class Options:
    """What each worker's job asks Slurm for; `configs/slurm.toml` is an example.

    partition, account    "" for the cluster's and yours
    cores : int           of a worker
    memory : str          of a worker, such as 8GB
    walltime : str        of a worker's job
    gpus : int            of a worker, 0 or 1
    interface : str       network interface that nodes reach each other by, such as ib0
    certs : str           folder of certificates, on a disk that all nodes see
    logs : str            folder for what workers print
    prologue : list       shell lines before a worker starts: module load, activate
    sbatch : list         further options of sbatch
    """

    partition: str = ""
    account: str = ""
    cores: int = 4
    memory: str = "8GB"
    walltime: str = "04:00:00"
    gpus: int = 0
    interface: str = ""
    certs: str = CERTIFICATES
    logs: str = ""
    prologue: list[str] = field(default_factory=list)
    sbatch: list[str] = field(default_factory=list)


def check(options: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing, and certificates that are not there.

    Raises
    ------
    ConfigError
        Naming the option.
    """
    security(options_of(Options, options, "dask_slurm").certs)


def default_workers(cores: int) -> int:
    """Jobs where nobody says."""
    return 4


def threads(cores: int, workers: int, options: Mapping[str, Any]) -> int:
    """Threads that a task may use: those of its worker."""
    return options_of(Options, options, "dask_slurm").cores


@contextmanager
def start(*, workers: int, threads_per_worker: int = 1, **options: Any) -> Iterator[DaskPool]:
    """Begin a scheduler here and have Slurm start `workers` workers; tasks wait until the first is there.

    Raises
    ------
    ConfigError
        If Slurm is not there or refuses.
    """
    given = options_of(Options, options, "dask_slurm")
    try:
        cluster = SLURMCluster(**arguments(given, threads_per_worker))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"executor dask_slurm: {error}") from error
    with cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        refused = refusal(cluster.job_script())
        if refused:
            raise ConfigError(f"executor dask_slurm: sbatch refuses the workers' jobs ({refused})")
        # A worker that comes to its time limit, or whose node is lost, is asked for again.
        cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
        pool = pool_of(client, workers, resource="GPU" if given.gpus else "")
        # That none is there now only says that the queue is long.
        yield replace(pool, alive=lambda: True)


def refusal(script: str) -> str:
    """Why Slurm would not take a job; "" where it would."""
    if shutil.which("sbatch") is None:
        return "there is no sbatch here"
    asked = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False
    )
    return " ".join(asked.stderr.split()) if asked.returncode else ""


def arguments(given: Options, threads_per_worker: int) -> dict[str, Any]:
    """What `SLURMCluster` is told."""
    environment = worker_environment(threads_per_worker)
    asked = [f"--gpus={given.gpus}"] if given.gpus else []
    place = str(Path(given.certs).expanduser())
    return {
        "queue": given.partition or None,
        "account": given.account or None,
        "cores": 1,  # one task at a time: a task's threads are the networks'
        "processes": 1,
        "job_cpu": given.cores,
        "memory": given.memory,
        "walltime": given.walltime,
        "job_name": "wsiseg-worker",
        "job_extra_directives": [*asked, *given.sbatch],
        "job_script_prologue": [
            *given.prologue,
            *(f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()),
        ],
        # No pages that anyone could read; memory is Slurm's to limit, and glibc keeps what tiles needed.
        "worker_extra_args": [
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--memory-limit", "0"),
            *(("--resources", "GPU=1") if given.gpus else ()),
        ],
        "interface": given.interface or None,
        "log_directory": given.logs or None,
        "local_directory": "${TMPDIR:-/tmp}",
        "protocol": "tls://",
        "security": security(place),
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "silence_logs": logging.CRITICAL,
    }
