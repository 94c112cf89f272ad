"""`wsiseg cohort run`: slides are segmented, by as many of these as there are."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from wsiseg.cli._executor import Address, Certs, Cluster, executor_options
from wsiseg.cli._options import Device, Quiet, Workers
from wsiseg.cli._report import reported, say, speak
from wsiseg.cli.cohort._results import Results

FAILED_SLIDES = 1
"""Exit status of `run` where it could not segment a slide; the others are done."""


@reported
def run(
    results: Results,
    array: Annotated[
        bool, typer.Option("--array", help="Take the share of this task of a Slurm array.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="Take share i of n, from 0: 0/4, 1/4, ...", show_default="all slides")
    ] = "",
    executor: Annotated[
        str,
        typer.Option(
            help="Where tiles are computed: threads, dask_local, dask_slurm or dask_address. Dask's are begun anew for "
            "every slide: they are for few large ones."
        ),
    ] = "threads",
    workers: Workers = None,
    address: Address = None,
    certs: Certs = None,
    cluster: Cluster = None,
    device: Device = "auto",
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds without a sign of life after which another process counts as gone.", min=1
        ),
    ] = 90.0,
    no_requeue: Annotated[
        bool, typer.Option("--no-requeue", help="Do not ask Slurm to run this task again at its time limit.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Segment slides of the plan until none is left that nobody works on.

    Any number of these may run at once, on any machines that see the folder. One that is stopped or lost is made up for
    by the others, or by starting it again; what was finished is kept. SIGTERM stops it in order; SIGUSR1, which Slurm
    sends before the time limit, has it queued again. The exit status is 1 if a slide that this one took could not be segmented.

    [bold]Examples[/bold]

    wsiseg cohort run results

    wsiseg cohort run results --array            in a Slurm array, see scripts/slurm_array.sh

    wsiseg cohort run results --shard 0/4        in any other batch system, or a shell
    """
    speak(quiet=quiet, verbose=False)
    from wsiseg import execute, granted, plugins
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.run import run_cohort
    from wsiseg.cohort.slide import Means
    from wsiseg.cohort.stop import Stop, Stopped
    from wsiseg.cohort.submission import requeue
    from wsiseg.errors import ConfigError
    from wsiseg.models import describe, find_model
    from wsiseg.predict import check_device

    if array and shard:
        raise ConfigError("--array and --shard both say which share; give one")
    index, count = granted.array_shard() if array else shard_of(shard)
    made = read_plan(results.absolute())
    made.check_any()
    options = executor_options(address, certs, cluster)
    # What no slide could be segmented with is refused before any is taken.
    plugins.load(execute, executor).check(options)
    check_device(device)
    describe(find_model(made.options.model))
    job, stop = granted.job_name(), Stop()
    stop.listen()
    means = Means(
        executor,
        workers_of(workers, executor, made.options.tile_size),
        device,
        options=options,
        job=job,
        patience=patience,
    )
    try:
        tally = run_cohort(
            made, means, index=index, count=count, stop=stop, say=(lambda text: None) if quiet else say
        )
    except Stopped as error:
        again = stop.asked == signal.SIGUSR1 and not no_requeue and requeue(job)
        say(
            f"stopped; what is finished is kept, and {'the task is queued again' if again else 'the same command goes on'}"
        )
        raise typer.Exit(128 + (stop.asked or signal.SIGTERM)) from error
    if not quiet:
        rest = f", {len(tally.elsewhere)} in other processes' hands" if tally.elsewhere else ""
        say(f"{len(tally.done)} slides done, {len(tally.failed)} failed{rest}")
    if tally.failed:
        raise typer.Exit(FAILED_SLIDES)


def shard_of(text: str) -> tuple[int, int]:
    """(index, count) of `i/n`.

    Raises
    ------
    ConfigError
        If it is not of that form, or i is not below n.
    """
    from wsiseg.errors import ConfigError

    index, _, count = (text or "0/1").partition("/")
    if not index.isdecimal() or not count.isdecimal() or int(index) >= int(count):
        raise ConfigError(f"--shard {text}: give i/n with i from 0 to n - 1, such as 0/4")
    return int(index), int(count)


def workers_of(asked: int | None, executor: str, tile_size: int) -> int | None:
    """Workers that fit into the memory that was granted; None leaves it to the executor."""
    from wsiseg import granted
    from wsiseg.estimate import workers_in

    memory = granted.memory()
    if asked or memory is None or executor not in ("threads", "dask_local"):
        return asked
    from wsiseg import execute, plugins

    backend = plugins.load(execute, executor)
    suits: int = backend.default_workers(execute.cores())
    fitting = workers_in(memory, tile_size=tile_size, shared=backend.ONE_PROCESS)
    if fitting < 1:
        say(
            f"warning: {memory / 1e9:.1f} GB were granted, which may be too little for tiles of {tile_size} px"
        )
    return max(1, min(suits, fitting))
