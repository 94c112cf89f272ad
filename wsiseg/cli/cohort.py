"""`wsiseg cohort`: many slides, on one machine or a cluster."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._executor import Address, Certs, Cluster, executor_options
from wsiseg.cli._names import names
from wsiseg.cli._report import reported, say, speak

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wsiseg.cohort.status import Status

cohort = typer.Typer(
    no_args_is_help=True,
    help="Segment many slides: plan, run on as many machines as there are, look, merge.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)

FAILED_SLIDES = 1
"""Exit status of `run` where it could not segment a slide; the others are done."""

Results = Annotated[
    Path, typer.Argument(help="Folder of results, as `cohort plan` made it.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")]


@cohort.command()
@reported
def plan(
    manifest: Annotated[
        str,
        typer.Argument(
            help="CSV file with the column slide and any of slide_mpp, roi, model, output; or a folder; or a pattern "
            "in quotes.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of results.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model folder.")] = "he-points",
    suffix: Annotated[
        str,
        typer.Option(
            help="What is written for each slide; nuclei are merged from .geojson, .geojson.gz, .zip and .zarr."
        ),
    ] = ".geojson",
    tile_size: Annotated[int, typer.Option(help="Side of a tile in pixels at the model's scale.")] = 1536,
    threshold: Annotated[
        float | None, typer.Option(help="Foreground probability, 0 to 1, instead of the model's own.")
    ] = None,
    min_area: Annotated[
        float | None, typer.Option(help="Smallest nucleus in square microns, instead of the model's own.")
    ] = None,
    flips: Annotated[
        int,
        typer.Option(
            help="Test-time augmentation: 1, 4 or 8 views of every tile, averaged. As many times as long, somewhat better."
        ),
    ] = 1,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="shape, stain, context, with commas between them.", show_default="shape"),
    ] = None,
    stains: Annotated[
        str,
        typer.Option(
            help="Stains to measure: estimate or estimate-h-dab (vectors of this slide), h-e or h-dab (QuPath's defaults), "
            "six numbers, or a .json or .toml file of QuPath's values."
        ),
    ] = "estimate",
    cells: Annotated[
        float | None,
        typer.Option(help="Grow cells around nuclei, by so many microns at most.", show_default="none"),
    ] = None,
    no_bounds: Annotated[
        bool,
        typer.Option("--no-bounds", help="Count pixels from the file's corner instead of its bounds (MRXS)."),
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add slides to a plan that exists, or correct some.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Look at every slide, estimate what it costs, and write the plan.

    What is wrong with a slide is said, and stops no other.

    [bold]Examples[/bold]

    wsiseg cohort plan slides/ -o results

    wsiseg cohort plan slides.csv -o results --suffix .zarr --measure shape,stain
    """
    speak(quiet=quiet, verbose=False)
    from wsiseg.cli.plan import readable
    from wsiseg.cohort.manifest import read_manifest
    from wsiseg.cohort.plan import Options, make_plan, write_plan
    from wsiseg.deconvolution import read_stains
    from wsiseg.models import describe, find_model
    from wsiseg.worker import check_measures, make_settings

    if Path(model).is_dir():  # else a name; a path must be right from wherever a run is started
        model = str(Path(model).absolute())
    options = Options(
        *(model, suffix, tile_size, threshold, min_area, names(measure), not no_bounds),
        stains=str(Path(stains).absolute()) if Path(stains).is_file() else stains,
        cells_um=cells,
        flips=flips,
    )
    make_settings(describe(find_model(model)), threshold=threshold, min_area_um2=min_area, flips=flips)
    check_measures(options.measure, cells)
    read_stains(options.stains)
    with looking(quiet=quiet) as watch:
        made = make_plan(read_manifest(manifest), output.absolute(), options, watch=watch)
    made = write_plan(made, update=update)
    for slide in made.slides:
        if slide.problem and not quiet:
            say(f"warning: {slide.where}: {slide.problem}")
    seconds, mm2 = sum(s.seconds for s in made.good), sum(s.mm2 for s in made.good)
    bad = len(made.slides) - len(made.good)
    if not quiet:
        say(
            f"{output}: {len(made.good):,} slides, {mm2:,.1f} mm2 of tissue, about {readable(seconds)} on one processor"
            + (f"; {bad:,} cannot be segmented, as said above" if bad else "")
        )


@contextmanager
def looking(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of slides looked at; None where stderr is no terminal or is to be quiet."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("looking at slides", total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


@cohort.command()
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
    workers: Annotated[
        int | None, typer.Option(help="Threads, processes or jobs; else what suits.", min=1)
    ] = None,
    address: Address = None,
    certs: Certs = None,
    cluster: Cluster = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
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
    sends before the time limit, has it queued again. The exit status is 1 if a slide could not be segmented.

    [bold]Examples[/bold]

    wsiseg cohort run results

    wsiseg cohort run results --array            in a Slurm array, see scripts/slurm_array.sh

    wsiseg cohort run results --shard 0/4        in any other batch system, or a shell
    """
    speak(quiet=quiet, verbose=False)
    from wsiseg import execute, granted, plugins
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.run import Means, Stop, Stopped, run_cohort
    from wsiseg.cohort.submission import requeue
    from wsiseg.errors import ConfigError
    from wsiseg.models import describe, find_model
    from wsiseg.predict import check_device

    if array and shard:
        raise ConfigError("--array and --shard both say which share; give one")
    index, count = granted.array_shard() if array else shard_of(shard)
    made = read_plan(results.absolute())
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

    suits: int = plugins.load(execute, executor).default_workers(execute.cores())
    fitting = workers_in(memory, tile_size=tile_size, shared=executor == "threads")
    if fitting < 1:
        say(
            f"warning: {memory / 1e9:.1f} GB were granted, which may be too little for tiles of {tile_size} px"
        )
    return max(1, min(suits, fitting))


@cohort.command()
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
    request = Request(
        array or f"0-{max(0, min(len(made.good), 100) - 1)}",
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


@cohort.command()
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


@cohort.command()
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


@cohort.command()
@reported
def merge(
    results: Results,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Parquet file of slides.", show_default=False)
    ],
    nuclei: Annotated[
        Path | None, typer.Option(help="Parquet file of all nuclei, as well.", show_default="none")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write one table of the cohort: a row a slide; with --nuclei another, a row a nucleus.

    [bold]Example[/bold]

    wsiseg cohort merge results -o cohort.parquet --nuclei nuclei.parquet
    """
    speak(quiet=False, verbose=False)
    from wsiseg.cohort.plan import read_plan
    from wsiseg.cohort.tables import write_nuclei, write_slides
    from wsiseg.errors import OutputError
    from wsiseg.outputs import check_folder

    made = read_plan(results.absolute())
    if nuclei is not None and nuclei.absolute() == output.absolute():
        raise OutputError(f"{output}: is given for slides and for nuclei; choose two names")
    for path in (output, nuclei):
        if path is not None:
            if path.suffix.lower() != ".parquet":
                raise OutputError(f"{path}: the table is written as .parquet; choose such a name")
            if path.exists() and not overwrite:
                raise OutputError(f"{path}: exists; give --overwrite to replace it, or choose another name")
            check_folder(path)
    say(f"{output}: {write_slides(made, output):,} slides")
    if nuclei is not None:
        say(f"{nuclei}: {write_nuclei(made, nuclei):,} nuclei")


@cohort.command()
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
