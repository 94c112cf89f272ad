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
    first: Annotated[int, typer.Option(help="Folds at most, from the first.", min=1)] = 10,
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
    configuration names are added to every fold's.

    wsiseg benchmark configs/spn-ien-small.toml --data ~/nuclei --dataset tnbc --protocol folds
    """
    speak(quiet=quiet, verbose=False)
    from typing import get_args

    from wsiseg.benchmark import Place, Protocol, folds_of, markdown, run_fold
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
    folds = folds_of(place.data / dataset, protocol)[:first]  # type: ignore[arg-type]  # checked above
    # The fold that is scored decides nothing; the official split has validation images for that.
    checks = read_held_out(settings, place.data, None) if protocol == "official" else None
    reports = []
    for fold in folds:
        with bars(quiet=quiet) as show:
            reports.append(
                run_fold(
                    settings,
                    dataset,
                    fold,
                    place,
                    held_out=checks,
                    seed=seed,
                    start=start,
                    flips=flips,
                    device=check_device(device),
                    progress=show,
                )
            )
        table = markdown(reports)
        write_text(output / f"{settings.name}-{dataset}-{protocol}-seed{seed}.md", table)
    print(table, end="")
    say(f"reports are in {output}")
