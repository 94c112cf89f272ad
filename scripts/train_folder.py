"""Train where only torch, numpy, scipy, scikit-image and scikit-learn are installed (a lent GPU machine, say).

    python scripts/train_folder.py configs/spn-ien-small.toml --data FOLDER -o RUN [--device cuda] [--seed 0]

The same configuration, loop and seed as `wsiseg train`; a run that was cut off goes on. The weights come
back as float16 in RUN/pieces, in files small enough to carry; `scripts/join_weights.py` makes a model of them.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wsiseg import plugins, recipes
from wsiseg.augment import Augmentation
from wsiseg.memory import keep_memory
from wsiseg.points import ClickFormat
from wsiseg.samples import Sample, read_samples, read_split
from wsiseg.stages import HeldOut, Schedule, TrainingImage
from wsiseg.train import train

PIECE = 14_000_000
"""Bytes of weights in a file at most, so that a file stays below 15 MB."""


def main() -> None:
    """Train, then write the pieces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    keep_memory()
    config = tomllib.loads(options.config.read_text(encoding="utf-8"))
    recipe = plugins.load(recipes, config["recipe"])
    settings = recipe.Settings(**with_schedules(config.get("settings", {})))
    networks = train(
        recipe.stages(settings),
        read_images(config, options.data),
        options.output,
        augmentation=Augmentation(**tuples(config.get("augmentation", {}))),
        seed=config.get("seed", 0) if options.seed is None else options.seed,
        device=options.device,
        held_out=read_held_out(config, options.data),
        progress=show,
    )
    write_pieces({n: networks[n].state_dict() for n in recipe.networks(settings)}, options.output / "pieces")


def with_schedules(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their tables as schedules; pydantic does this elsewhere."""
    return {
        n: Schedule(**tuples(value)) if isinstance(value, dict) else value for n, value in settings.items()
    }


def tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with TOML's arrays as tuples."""
    return {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}


def read_images(config: Mapping[str, Any], root: Path) -> list[TrainingImage]:
    """Images of every data set of a configuration, with their options."""
    return [
        TrainingImage(sample, data.get("options", {}))
        for data in config["data"]
        for sample in read_folder(config, data, root, "train")
    ]


def read_held_out(config: Mapping[str, Any], root: Path) -> HeldOut | None:
    """What the configuration holds out, if anything."""
    data = config.get("held_out")
    if data is None:
        return None
    samples = read_folder(config, data, root, "val")
    return HeldOut(samples, data.get("every", 250), data.get("patience", 0))


def read_folder(config: Mapping[str, Any], data: Mapping[str, Any], root: Path, split: str) -> list[Sample]:
    """The images of one part of one data set; `split` where it names none."""
    folder = root / data["folder"]
    return read_samples(
        folder,
        read_split(folder, data.get("split", split)),
        mpp=config.get("mpp", 0.25),
        from_masks=data.get("points_from_masks", False),
        classes=config.get("classes", ()),
        clicks=ClickFormat(
            data.get("class_column", "class"), data.get("class_names", {}), data.get("lenient", False)
        ),
    )


def show(stage: str, step: int, steps: int, loss: float) -> None:
    """A line now and then."""
    if step % 100 == 0 or step == steps:
        print(f"{stage}: step {step} of {steps}, loss {loss:.4f}", flush=True)


def write_pieces(states: Mapping[str, Mapping[str, torch.Tensor]], folder: Path) -> None:
    """The weights as `00.pt`, `01.pt`, ...: flat dictionaries of NETWORK/WEIGHT, float16."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.pt"):
        old.unlink()
    piece: dict[str, torch.Tensor] = {}
    number, size = 0, 0
    for network, state in states.items():
        for name, weight in state.items():
            small = (weight.half() if weight.is_floating_point() else weight).cpu().contiguous()
            if piece and size + small.nbytes > PIECE:
                torch.save(piece, folder / f"{number:02d}.pt")
                piece, number, size = {}, number + 1, 0
            piece[f"{network}/{name}"] = small.clone()
            size += small.nbytes
    torch.save(piece, folder / f"{number:02d}.pt")


if __name__ == "__main__":
    main()
