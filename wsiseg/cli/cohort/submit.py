"""`wsiseg cohort submit`: a Slurm array."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from wsiseg.cli._report import reported, speak
from wsiseg.cli.cohort._results import Results


@reported
def submit(
    results: Results,
    array: Annotated[
        str,
        typer.Option(
            help="Tasks, as sbatch has it: 0-99, 0-99%20.", show_default="a task a slide, 100 at most"
        ),
    ] = "",
    time_limit: Annotated[str, typer.Option("--time", help="Time limit of a task.")] = "4:00:00",
    cpus: Annotated[int, typer.Option(help="Processors of a task.", min=1)] = 4,
    memory: Annotated[str, typer.Option("--mem", help="Memory of a task.")] = "8G",
    partition: Annotated[str, typer.Option(help="Partition.", show_default="the cluster's")] = "",
    account: Annotated[str, typer.Option(help="Account.", show_default="yours")] = "",
    gpus: Annotated[int, typer.Option(help="GPUs of a task.", min=0)] = 0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", help="A further option of sbatch; may be given several times."),
    ] = None,
    run_options: Annotated[
        str,
        typer.Option(
            "--run", help="Options for wsiseg cohort run, in quotes: '--workers 1'.", show_default="none"
        ),
    ] = "",
    command: Annotated[
        str, typer.Option(help="What wsiseg is on the nodes: a container, say.", show_default="this Python's")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the script; submit nothing.")] = False,
) -> None:
    """Write the job script of a Slurm array and submit it.

    [bold]Examples[/bold]

    wsiseg cohort submit results --time 4:00:00 --array 0-99%20 --dry-run

    wsiseg cohort submit results --partition gpu --gpus 1 --array 0-9
    """
    speak(quiet=False, verbose=False)
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.submission import Request, job_script
    from wsiseg.cohort.submission import submit as give
    from wsiseg.errors import ConfigError

    made = read_plan(results.absolute())
    made.check_any()
    request = Request(
        array or f"0-{min(len(made.good), 100) - 1}",
        time_limit,
        cpus,
        memory,
        partition,
        account,
        gpus,
        tuple(sbatch or ()),
    )
    try:
        given = shlex.split(run_options)
    except ValueError as error:
        raise ConfigError(f"--run {run_options!r}: {error}") from error
    script = job_script(
        made, request, options=[*(("--device", "cuda") if gpus else ()), *given], command=command
    )
    print(script if dry_run else give(made, script))
