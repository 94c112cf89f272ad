"""`wsiseg pseudo-label`: pictures of what a network is taught."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._options import Data
from wsiseg.cli._report import reported, say, speak


@reported
def pseudo_label(
    config: Annotated[
        Path, typer.Argument(help="TOML file, such as configs/clicks.toml.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the pictures.", show_default=False)
    ],
    data: Data = None,
    slides: Annotated[Path | None, typer.Option(help="CSV of slides and their clicked points.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="The model that training will start from: it may have a say in the labels."
        ),
    ] = None,
    points_from_masks: Annotated[
        bool, typer.Option("--points-from-masks", help="Points are the centres of the masks in --data.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Pictures at most.", min=1)] = 20,
) -> None:
    """Draw pseudo-labels over the tissue: look at them before you train.

    Each picture shows the points, then what they are turned into: nuclei red, background green, and
    untouched what teaches nothing. Red that runs over its nucleus, or green on nuclei, is what a network
    would learn; another colour_weight, max_distance or trace (the radius of a typical nucleus, pixels), or more
    clicks, may mend it.

    Give --from where `wsiseg train` will have it: with `refresh` in the configuration, labels are what that model's
    semantic network and the points agree on, or, with `trace`, each point's nucleus along the edges of the image where
    that network sees one. Without it they are those of the first network that learns.

    wsiseg pseudo-label configs/clicks.toml --slides slides.csv --from he-points -o labels/
    """
    speak(quiet=False, verbose=False)
    from wsiseg import plugins, recipes
    from wsiseg.config import read_config, read_images
    from wsiseg.errors import ConfigError, OutputError
    from wsiseg.label_pictures import write_pseudo_labels
    from wsiseg.predict import load_networks

    settings = read_config(config)
    given = {} if start is None else load_networks(start, settings.recipe, settings.settings)
    stages = plugins.load(recipes, settings.recipe).stages(settings.settings)
    networks = {stage.name: given[stage.taken_over] for stage in stages if stage.taken_over in given}
    first = next((stage for stage in stages if stage.name not in networks), None)
    if first is None:
        raise ConfigError(f"{config}: every network stays as {start} has it (crops = 0); nothing is taught")
    for image in read_images(settings, data, slides, from_masks=points_from_masks)[:limit]:
        try:
            path = write_pseudo_labels(image, first.targets, networks, output)
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror})") from error
        print(path)
    say("points yellow, nuclei red, background green; the rest is not taught")
