"""`wsiseg benchmark`: a table of a paper, rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._bars import bars
from wsiseg.cli._options import Data, Device, Quiet
from wsiseg.cli._report import reported, say, speak


@reported
def benchmark(
    config: Annotated[
        Path, typer.Argument(help="TOML file, such as configs/spn-ien-small.toml.", show_default=False)
    ],
    data: Data = None,
    dataset: Annotated[str, typer.Option(help="Data set below that folder.")] = "multiorgan",
    protocol: Annotated[
        str, typer.Option(help="validation, official (the test split: once, with final settings) or folds.")
    ] = "validation",
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start every fold from this model; it must not have seen the images that are scored.",
        ),
    ] = None,
    flips: Annotated[int, typer.Option(help="Score 4 or 8 views of every image averaged, too.")] = 1,
    fold: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of a fold, from 0, as for a task of an array job; may be repeated. Else all."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints and models.")] = Path("runs/benchmark"),
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the reports and the table.")
    ] = Path("benchmarks/accuracy"),
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train and score by a paper's protocol: on the official split, or by ten-fold cross-validation.

    Each fold's report is written as it ends; the same command goes on from there, and from the checkpoint
    of the fold it was in. Settings are chosen with --protocol validation. Training images of further data sets that the
    configuration names are added to every fold's. Folds may run side by side, each by --fold: the table is of all that
    have ended.

    wsiseg benchmark configs/spn-ien-small.toml --data ~/nuclei --dataset tnbc --protocol folds
    """
    speak(quiet=quiet, verbose=False)
    from typing import get_args

    from wsiseg.benchmark import Place, Protocol, folds_of, markdown, read_report, run_fold
    from wsiseg.config import data_folder, read_config, read_held_out
    from wsiseg.errors import ConfigError
    from wsiseg.flips import check_flips
    from wsiseg.outputs import write_text
    from wsiseg.predict import check_device

    if protocol not in get_args(Protocol):
        raise ConfigError(f"protocol {protocol!r} is unknown; choose from {', '.join(get_args(Protocol))}")
    settings = read_config(config)
    check_flips(flips, getattr(settings.settings, "coordinates", None))
    place = Place(data_folder(data), runs, output)
    folds = folds_of(place.data / dataset, protocol)  # type: ignore[arg-type]  # checked above
    chosen = fold or list(range(len(folds)))
    if outside := [number for number in chosen if not 0 <= number < len(folds)]:
        raise ConfigError(f"fold {outside[0]} is not there; {dataset} has 0 to {len(folds) - 1}")
    # The fold that is scored decides nothing; the official split has validation images for that.
    checks = read_held_out(settings, place.data, None) if protocol == "official" else None
    for number in chosen:
        with bars(quiet=quiet) as show:
            run_fold(
                settings,
                dataset,
                folds[number],
                place,
                held_out=checks,
                seed=seed,
                start=start,
                flips=flips,
                device=check_device(device),
                progress=show,
            )
        # Of all that have ended: others may have been run by other tasks.
        kept = (read_report(settings, dataset, each, place, seed=seed, start=start) for each in folds)
        table = markdown([report for report in kept if report is not None])
        write_text(output / f"{settings.name}-{dataset}-{protocol}-seed{seed}.md", table)
    print(table, end="")
    say(f"reports are in {output}")
