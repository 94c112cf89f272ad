"""`wsiseg calibrate`: make a model's detection probabilities mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsiseg.cli._options import Data, DataSets, Device, ImageMpp
from wsiseg.cli._report import reported, say, speak
from wsiseg.errors import ConfigError


@reported
def calibrate(
    model: Annotated[Path, typer.Argument(help="The model folder; its card is changed.", show_default=False)],
    data: Data = None,
    dataset: DataSets = None,
    split: Annotated[
        str, typer.Option(help="A part of split.json that the model was not trained on.")
    ] = "val",
    image_mpp: ImageMpp = None,
    tissue: Annotated[str, typer.Option(help="What the images show; goes into the card.")] = "",
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the reliability diagram: .png or .svg.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Have "Detection probability" mean: how likely the outline meets a true nucleus's (IoU above 0.5).

    Without a calibration it is the mean foreground probability of the nucleus, which says nothing of its outline.
    A logistic regression on that, the area and the solidity is fitted to images with masks, on which the model must
    not have been trained, and kept in its card. What it would say of an image that was left out is told beside it.

    wsiseg calibrate trained/model --data ~/nuclei --dataset mine --tissue "colon, H&E"
    """
    speak(quiet=False, verbose=False)
    from wsiseg import calibrate as calibration
    from wsiseg.calibration import expected_error
    from wsiseg.config import data_folder
    from wsiseg.models import ModelRef, describe, find_model
    from wsiseg.predict import check_device, load
    from wsiseg.samples import read_samples, read_split

    if split == "train":
        raise ConfigError(
            "--split train: of images it was trained on a model is too sure; take others, such as val"
        )
    folder = find_model(model)
    card = describe(folder)
    loaded = load(ModelRef(card.recipe, str(folder), check_device(device)))
    root, sets = data_folder(data), dataset or ["multiorgan", "tnbc"]
    names = {name: read_split(root / name, split) for name in sets}
    mpp = image_mpp or card.mpp
    samples = [s for n in sets for s in read_samples(root / n, names[n], mpp=mpp, from_masks=True)]
    about = {
        "labels": "masks of all nuclei, for this alone",
        "images": {f"{name}/{split}": list(of) for name, of in names.items()},
        **({"tissue": tissue} if tissue else {}),
    }
    found = calibration.calibrated(calibration.judge(samples, loaded), about)
    calibration.keep(folder, found.calibration)
    facts = found.calibration.about
    say(
        f"{facts['nuclei']} nuclei of {len(samples)} images, {facts['met']:.0%} of which meet a true one; expected "
        f"calibration error {expected_error(found.before):.3f} before, {expected_error(found.after):.3f} on images "
        f"left out of the fit; kept in {folder / 'model.json'}"
    )
    if picture is not None:
        curves = {"mean foreground": found.before, "calibrated, left out": found.after}
        calibration.draw_reliability(curves, picture)
        say(f"the reliability diagram is in {picture}")
