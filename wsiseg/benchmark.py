"""A table of a paper, rerun: train and score by a stated protocol, fold by fold, each kept as it ends."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from wsiseg import plugins, recipes
from wsiseg.config import Config, DataSet
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate import METRICS, evaluate, grouped
from wsiseg.learning import minutes_of
from wsiseg.models import ModelRef, describe, find_model
from wsiseg.outputs import write_text
from wsiseg.predict import load, load_networks, save_model
from wsiseg.samples import at_mpp, read_samples, read_split
from wsiseg.stages import HeldOut, TrainingImage
from wsiseg.train import train
from wsiseg.version import __version__, commit

Protocol = Literal["validation", "official", "folds"]
"""Training split scored on validation images; on the test split; ten-fold cross-validation."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Names of the images that are trained on, and of those that are scored."""

    name: str
    train: tuple[str, ...]
    scored: tuple[str, ...]


def folds_of(folder: Path, protocol: Protocol) -> tuple[Fold, ...]:
    """The folds of a data set.

    Raises
    ------
    DataError
        If its `split.json` or `folds.json` cannot be read.
    """
    if protocol != "folds":
        scored = "val" if protocol == "validation" else "test"
        return (Fold(protocol, read_split(folder, "train"), read_split(folder, scored)),)
    path = folder / "folds.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return tuple(Fold(str(f["fold"]), tuple(f["train"]), tuple(f["val"])) for f in listed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it lists the images of every fold") from error


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark reads and writes.

    data : Path       folder of the data sets
    runs : Path       checkpoints and models, a folder a fold
    reports : Path    a JSON file a fold, and the table
    """

    data: Path
    runs: Path
    reports: Path


def run_fold(
    config: Config,
    dataset: str,
    fold: Fold,
    place: Place,
    *,
    held_out: HeldOut | None = None,
    seed: int = 0,
    start: str | None = None,
    flips: int = 1,
    device: str = "cpu",
    progress: Callable[[str, int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Train on a fold, score it and keep the report; one that is there already is only read.

    start : str or None        a model to start from, by bundled name or folder, that saw none of the scored images
    flips : int                beside one view, this many averaged are scored (`wsiseg.flips`)

    Raises
    ------
    ConfigError
        If the configuration does not name the data set, or the report there was made with another one.
    """
    kept = read_report(config, dataset, fold, place, seed=seed, start=start)
    if kept is not None:
        return kept
    report = _report(config, dataset, fold, place, seed)
    folder = place.runs / report.stem
    recipe = plugins.load(recipes, config.recipe)
    images = training_images(config, dataset, fold, place.data)
    networks = train(
        recipe.stages(config.settings),
        images,
        folder,
        augmentation=config.augmentation,
        seed=seed,
        device=device,
        start=None if start is None else load_networks(start, config.recipe, config.settings),
        held_out=held_out,
        progress=progress,
    )
    final = {n: networks[n] for n in recipe.networks(config.settings)}
    save_model(final, folder / "model", config.card(start))
    model = load(ModelRef(config.recipe, str(folder / "model"), device))
    mpp = config.mpp_of(data_set(config, dataset))
    samples = read_samples(place.data / dataset, fold.scored, mpp=mpp, from_masks=True)
    table = evaluate(samples, grouped(model))
    kept = {
        "config": config.name,
        "dataset": dataset,
        "fold": fold.name,
        "seed": seed,
        "mean": table.mean(),
        "minutes": minutes_of(folder),
        "hardware": hardware(device),
        "code": {"version": __version__, "commit": commit(), "torch": torch.__version__},
        "settings": _settings(config, start),
        "training images": len(images),
        "images": table.rows,
        "views": {} if flips == 1 else {str(flips): evaluate(samples, grouped(model, flips=flips)).mean()},
    }
    write_text(report, json.dumps(kept, indent=1) + "\n")
    return kept


def read_report(
    config: Config, dataset: str, fold: Fold, place: Place, *, seed: int = 0, start: str | None = None
) -> dict[str, Any] | None:
    """The report of a fold, None where it has not ended.

    Raises
    ------
    ConfigError
        If it was made with another configuration, or from another start.
    """
    path = _report(config, dataset, fold, place, seed)
    if not path.exists():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if kept["settings"] != json.loads(json.dumps(_settings(config, start))):
        raise ConfigError(f"{path}: made with other settings; move it away, or rename the configuration")
    return kept


def _report(config: Config, dataset: str, fold: Fold, place: Place, seed: int) -> Path:
    return place.reports / f"{config.name}-{dataset}-{fold.name}-seed{seed}.json"


def _settings(config: Config, start: str | None) -> dict[str, Any]:
    """What a report must have been made with: the recipe's and the training's settings, and the start."""
    settings = config.card()["settings"] | config.card()["about"]["training"]
    settings = {key: value for key, value in settings.items() if key not in ("code", "seed")}
    if start is not None:
        card = describe(find_model(start))
        settings["start"] = {"name": card.name, "hash": card.hash}
    return settings


def training_images(config: Config, dataset: str, fold: Fold, root: Path) -> list[TrainingImage]:
    """A fold's training images, and those of every other data set that the configuration names, with its options.

    Raises
    ------
    ConfigError
        If it does not name the fold's data set.
    """
    data_set(config, dataset)
    images = []
    for data in config.data:
        folder = root / data.folder
        names = fold.train if data.folder == dataset else read_split(folder, data.split)
        samples = read_samples(folder, names, mpp=config.mpp_of(data), from_masks=True)
        images += [TrainingImage(at_mpp(sample, config.mpp), data.options) for sample in samples]
    return images


def data_set(config: Config, name: str) -> DataSet:
    """A data set of a configuration.

    Raises
    ------
    ConfigError
        If it names none of this folder.
    """
    for data in config.data:
        if data.folder == name:
            return data
    named = ", ".join(data.folder for data in config.data) or "none"
    raise ConfigError(f"{config.name}: has no data set {name!r}; it names {named}")


def hardware(device: str) -> str:
    """What it ran on, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {len(os.sched_getaffinity(0))} cores, {platform.machine()}"


def markdown(reports: Sequence[Mapping[str, Any]]) -> str:
    """The folds as a Markdown table, with their mean and standard deviation last."""
    lines = ["| fold | seed | " + " | ".join(METRICS) + " | minutes |", "|---" * (len(METRICS) + 3) + "|"]
    for each in reports:
        cells = " | ".join(f"{each['mean'][name]:.4f}" for name in METRICS)
        lines.append(f"| {each['fold']} | {each['seed']} | {cells} | {each['minutes']:.0f} |")
    if len(reports) > 1:
        minutes = f"{sum(r['minutes'] for r in reports):.0f} in all"
        lines.append(f"| mean ± deviation | | {_over_folds([r['mean'] for r in reports])} | {minutes} |")
    views = [r.get("views", {}) for r in reports]
    for number in sorted(set.intersection(*map(set, views)), key=int):
        lines.append(f"| {number} views averaged | | {_over_folds([v[number] for v in views])} | |")
    return "\n".join(lines) + "\n"


def _over_folds(means: Sequence[Mapping[str, float]]) -> str:
    """Cells of a line: mean ± deviation of every metric; of one fold its number."""
    columns = [[each[name] for each in means] for name in METRICS]
    spread = [f" ± {np.std(c, ddof=1):.4f}" if len(c) > 1 else "" for c in columns]
    return " | ".join(f"{np.mean(c):.4f}{s}" for c, s in zip(columns, spread, strict=True))
