"""`wsiseg train`: clicked nuclei in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._bars import bars
from wsiseg.cli._options import Data, Device, Quiet, Verbose
from wsiseg.cli._report import reported, say, speak

if TYPE_CHECKING:
    from wsiseg.samples import Sample

CORRECTION_CROPS = 2_000
"""Of each stage, where corrected nuclei train a model further: a few minutes on two cores."""

HALF_WAY = 100
"""Clicked or changed nuclei with which a model goes half of the way to what was made of it; more take it further.

Chosen on validation images (`benchmarks/accuracy/README.md`): a few make of a good model a worse one on other tissue.
"""

AREAS = 1.5
"""Corrected areas with which a model goes half of the way at most: however many nuclei, one place teaches its own look."""


@reported
def train(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="TOML file, such as configs/spn-ien-small.toml; may be left out with --corrections and --from.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    slides: Annotated[
        Path | None,
        typer.Option(help="CSV of slides and their clicked points; trains on these, and on --data if given."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Start from this model: a bundled name or a model folder."),
    ] = None,
    corrections: Annotated[
        list[Path] | None,
        typer.Option(
            "--corrections",
            help="GeoJSON of a slide's nuclei after they were corrected in QuPath, with areas drawn around what was. "
            "May be given several times, each with its --slide.",
        ),
    ] = None,
    slide: Annotated[list[str] | None, typer.Option("--slide", help="The slide of --corrections.")] = None,
    slide_mpp: Annotated[
        float | None, typer.Option("--slide-mpp", help="Microns per pixel of --slide, where it has none.")
    ] = None,
    points_from_masks: Annotated[
        bool, typer.Option("--points-from-masks", help="Points are the centres of the masks in --data.")
    ] = False,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            help="CSV of further clicked slides: the weights that find their points best are kept.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="End the training of a network after so many checks on held-out images that were no better; 0: never.",
            min=0,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run; runs/NAME where it is left out.")
    ] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One step of every stage, then stop.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model from points, or further from corrected nuclei.

    A run that was cut off goes on from its last checkpoint when the same command is given again. The
    model lies in the folder `model` of the run; `wsiseg segment --model RUN/model` uses it.

    wsiseg train configs/clicks.toml --slides slides.csv --from he-points -o runs/mine

    wsiseg train configs/images.toml --data ~/nuclei --from he-points -o runs/mine

    wsiseg train --corrections fixed.geojson --slide slide.svs --from he-points -o runs/mine

    ~/nuclei holds images/NAME.png and points/NAME.csv (x,y[,class]), a point in every nucleus.

    slides.csv has a row a slide: slide,points[,regions][,slide_mpp]. Points are QuPath's GeoJSON or a CSV
    file with x,y[,class]; a region around points says that every nucleus in it is clicked.

    fixed.geojson is all objects of an image, exported after nuclei were deleted, drawn anew or added as points, with an
    annotation around each place where all are right now. A quarter of them is held out, to say whether it helped.

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m wsiseg train CONFIG --data FOLDER
    """
    speak(quiet=quiet, verbose=verbose)
    from wsiseg import plugins, recipes
    from wsiseg.config import (
        read_config,
        read_corrected_images,
        read_held_out,
        read_images,
        tuning_config,
    )
    from wsiseg.curves import draw_curves
    from wsiseg.errors import ConfigError
    from wsiseg.parallel import processes
    from wsiseg.predict import check_device, load_networks, save_model
    from wsiseg.train import alike, blended
    from wsiseg.train import train as run

    if config is not None:
        settings = read_config(config)
    elif corrections and start is not None:
        settings = tuning_config(start, crops=CORRECTION_CROPS)
    else:
        raise ConfigError("no configuration; it may be left out only with --corrections and --from")
    begin = None if start is None else load_networks(start, settings.recipe, settings.settings)
    images, kept_back = read_corrected_images(settings, corrections or [], slide or [], slide_mpp=slide_mpp)
    if data is not None or slides is not None or not images:
        images += read_images(settings, data, slides, from_masks=points_from_masks)
    checks = read_held_out(settings, data, held_out, patience=patience, from_masks=points_from_masks)
    folder = output or Path("runs") / settings.name
    recipe = plugins.load(recipes, settings.recipe)
    points = sum(len(image.sample.points) for image in images)
    with processes(check_device(device)) as (together, own_device):
        quiet = quiet or not together.first
        if not quiet:
            say(f"{settings.name}: {len(images)} images, {points:,} points, recipe {settings.recipe}")
        with bars(quiet=quiet) as show:
            networks = run(
                recipe.stages(settings.settings),
                images,
                folder / "dry-run" if dry_run else folder,
                augmentation=settings.augmentation,
                seed=settings.seed,
                device=own_device,
                steps=1 if dry_run else None,
                start=begin,
                held_out=checks,
                processes=together,
                progress=show,
            )
    if not together.first:
        return
    if dry_run:
        say("one step of every stage ran; no model was written")
        return
    final = {name: networks[name] for name in recipe.networks(settings.settings)}
    if config is not None and begin is not None and alike(begin, final):
        share = points / (points + HALF_WAY)
        final = blended(begin, final, share)
        few = f"; so few seldom make it better: click {2 * HALF_WAY}" if points < HALF_WAY else ""
        say(f"{points:,} clicked nuclei take the model {share:.0%} of the way to what was made of it{few}")
    elif config is None and begin is not None and start is not None:
        areas = [image.sample for image in images if image.sample.outlines is not None]
        made = changed(settings.recipe, start, areas, own_device)
        share = min(made / (made + HALF_WAY), len(areas) / (len(areas) + AREAS))
        final = blended(begin, final, share)
        say(
            f"{made:,} nuclei were changed: they take the model {share:.0%} of the way to what was made of it"
        )
    save_model(final, folder / "model", settings.card(start))
    say(f"learning curves: {draw_curves(folder)}")
    if corrections and start is not None:
        say(compared(settings.recipe, start, folder / "model", kept_back, own_device))
    say(f"the model lies in {folder / 'model'}; use it with: wsiseg segment SLIDE --model {folder / 'model'}")


def changed(recipe: str, before: str, samples: list[Sample], device: str) -> int:
    """How many nuclei of a model were corrected in the samples."""
    from wsiseg.evaluate import corrections_made
    from wsiseg.models import ModelRef, find_model
    from wsiseg.predict import load

    return corrections_made(samples, load(ModelRef(recipe, str(find_model(before)), device)))


def compared(recipe: str, before: str, after: Path, held_out: list[Sample], device: str) -> str:
    """Whether a model became better on held-out corrected nuclei, in words."""
    from wsiseg.evaluate import on_corrected
    from wsiseg.models import ModelRef, find_model
    from wsiseg.predict import load

    if not held_out:
        return "too few nuclei were corrected to hold some out: whether it helped is not known"
    first, second = (
        on_corrected(held_out, load(ModelRef(recipe, str(folder), device)))
        for folder in (find_model(before), after)
    )
    told = f"on {first.nuclei} held-out nuclei: F1 of points {first.f1:.3f} before, {second.f1:.3f} after"
    gain = second.f1 - first.f1
    if first.aji is not None and second.aji is not None:
        told, gain = f"{told}; AJI {first.aji:.3f} before, {second.aji:.3f} after", second.aji - first.aji
    return f"{told}: " + ("better" if gain > 0 else "no better; correct more, or stay with what you had")
