"""`wsiseg evaluate`: how well a model does on labelled images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsiseg.cli._options import DEFAULT_MODEL, Data, DataSets, Device, ImageMpp, Model
from wsiseg.cli._report import reported, say, speak

if TYPE_CHECKING:
    from wsiseg.calibrate import Judged
    from wsiseg.calibration import Bin


@reported
def evaluate(
    data: Data = None,
    dataset: DataSets = None,
    split: Annotated[
        str,
        typer.Option(
            help="A part of the data set's split.json: val, test, ..., or all. Without that file val is one image in four."
        ),
    ] = "val",
    model: Model = DEFAULT_MODEL,
    image_mpp: ImageMpp = None,
    flips: Annotated[int, typer.Option(help="1, 4 or 8 views of every image, averaged.")] = 1,
    choose: Annotated[
        bool,
        typer.Option("--choose", help="Also try thresholds and least areas: for validation images alone."),
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(help="THRESHOLD,MIN_AREA: also connected components of the foreground alone."),
    ] = None,
    reliability: Annotated[
        Path | None,
        typer.Option(
            help="Also draw how far detection probabilities are true, and tell their expected calibration error: .png or .svg."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Also write the numbers as JSON.")] = None,
    device: Device = "auto",
) -> None:
    """Evaluate a model on images with masks: AJI in both variants, object Dice, PQ, pixel IoU and F1.

    Choices belong on validation images; run the test split once, with a final model.

    wsiseg evaluate --data ~/nuclei --split val --choose

    wsiseg evaluate --data ~/nuclei --split test --dataset multiorgan --baseline 0.3,40
    """
    speak(quiet=False, verbose=False)
    from dataclasses import asdict

    from wsiseg import calibrate, calibration
    from wsiseg import evaluate as evaluation
    from wsiseg.config import data_folder
    from wsiseg.flips import check_flips
    from wsiseg.models import ModelRef, describe, find_model
    from wsiseg.predict import check_device, load
    from wsiseg.samples import read_samples, read_split

    folder = find_model(model)
    card = describe(folder)
    loaded = load(ModelRef(card.recipe, str(folder), check_device(device)))
    check_flips(flips, card.settings.get("coordinates"))
    root, curves = data_folder(data), {}
    numbers: dict[str, Mapping[str, object]] = {}
    for name in dataset or ["multiorgan", "tnbc"]:
        names = read_split(root / name, split)
        samples = read_samples(root / name, names, mpp=image_mpp or card.mpp, from_masks=True)
        segments = {card.name: evaluation.grouped(loaded, flips=flips)}
        if baseline is not None:
            segments["components"] = evaluation.components(loaded, *_numbers(baseline), flips=flips)
        for method, segment in segments.items():
            table = evaluation.evaluate(samples, segment)
            print(f"\n{name}, {split}, {method}\n\n{table.markdown()}")
            numbers[f"{name}/{split}/{method}"] = {"images": table.rows, "mean": table.mean()}
        if choose:
            chosen, components = evaluation.choose(samples, loaded, flips=flips)
            print(f"\nbest on {name}, {split}: {chosen}; components alone: {components}")
        if reliability is not None:
            judged = calibrate.judge(samples, loaded, flips=flips)
            bins = curves[f"{name}, {split}"] = calibration.reliability(judged.probability, judged.met)
            said = told(judged, bins)
            numbers[f"{name}/{split}/probability"] = {**said, "bins": [asdict(b) for b in bins]}
            print(f"\n{name}, {split}: " + ", ".join(f"{key} {value:.4g}" for key, value in said.items()))
    if reliability is not None:
        calibrate.draw_reliability(curves, reliability)
        say(f"the reliability diagram is in {reliability}")
    if output is not None:
        output.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        say(f"the numbers are in {output}")


def told(judged: Judged, bins: list[Bin]) -> dict[str, float]:
    """How true probabilities are, and what the flag of ambiguous nuclei is worth, by name."""
    from wsiseg.calibration import expected_error

    flag, missed = judged.ambiguous, ~judged.met
    numbers = {
        "nuclei judged": float(len(judged)),
        "that meet a true one": float(judged.met.mean()),
        "expected calibration error": expected_error(bins),
    }
    if flag.any():
        numbers |= {
            "ambiguous": float(flag.mean()),
            "of those meet none": float(missed[flag].mean()),
            "of the others": float(missed[~flag].mean()),
        }
    return numbers


def _numbers(text: str) -> tuple[float, int]:
    from wsiseg.errors import ConfigError

    try:
        threshold, area = text.split(",")
        return float(threshold), int(area)
    except ValueError as error:
        raise ConfigError(f"--baseline {text!r}: give THRESHOLD,MIN_AREA, such as 0.3,40") from error
