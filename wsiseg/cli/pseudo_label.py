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
    points_from_masks: Annotated[
        bool, typer.Option("--points-from-masks", help="Points are the centres of the masks in --data.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Pictures at most.", min=1)] = 20,
) -> None:
    """Draw pseudo-labels over the tissue: look at them before you train.

    Each picture shows the points, then what they are turned into: nuclei red, background green, and
    untouched what teaches nothing. Red that runs over its nucleus, or green on nuclei, is what a network
    would learn; another colour_weight or max_distance, or more clicks, may mend it.

    wsiseg pseudo-label configs/clicks.toml --slides slides.csv -o labels/
    """
    speak(quiet=False, verbose=False)
    from wsiseg import plugins, recipes
    from wsiseg.config import read_config, read_images
    from wsiseg.errors import OutputError
    from wsiseg.label_pictures import write_pseudo_labels

    settings = read_config(config)
    first = plugins.load(recipes, settings.recipe).stages(settings.settings)[0]
    for image in read_images(settings, data, slides, from_masks=points_from_masks)[:limit]:
        try:
            path = write_pseudo_labels(image, first.targets, output)
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror})") from error
        print(path)
    say("points yellow, nuclei red, background green; the rest is not taught")
