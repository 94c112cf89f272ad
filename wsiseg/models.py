"""Trained models on disk: a folder with a card and float16 safetensors; read here without torch.

he-points/
    model.json           the card: recipe, settings, mpp, classes, data, licence, metrics
    spn.safetensors      one file a network, named in the card with its SHA-256
    ien.safetensors
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsiseg.calibration import FEATURES, Calibration
from wsiseg.errors import ModelError

FORMAT = "wsiseg-model-1"
BUNDLED = Path(__file__).parent / "weights"
DEFAULT = "he-points"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is, as its card says.

    name, recipe : str
    mpp : float                      microns per pixel it was trained at
    halo : int                       pixels around a core that it must see
    settings                         the recipe's, as plain values
    class_names, class_colors        of the nuclei it tells apart; colours are (r, g, b)
    files                            network name -> (file name, SHA-256)
    about                            data, licence, metrics and the like: for people
    calibration                      what makes a nucleus's score a probability; None: it is the mean of its pixels'
    hash : str                       changes when weights, settings or calibration do
    """

    name: str
    recipe: str
    mpp: float
    halo: int
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    files: Mapping[str, tuple[str, str]]
    about: Mapping[str, Any]
    hash: str
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model runs where: all that a worker needs to load it.

    recipe : str        plug-in that knows its networks
    checkpoint : str    model folder
    device : str        "cpu", "cuda" or "cuda:N"
    """

    recipe: str
    checkpoint: str
    device: str = "cpu"


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob("*/model.json")))


def find_model(name: str | Path) -> Path:
    """The folder of a bundled model's name, or of a path.

    Raises
    ------
    ModelError
        If there is neither.
    """
    for folder in (BUNDLED / str(name), Path(name)):
        if (folder / "model.json").is_file():
            return folder
    if Path(name).exists():
        raise ModelError(f"{name}: not a wsiseg model; a model is a folder with model.json and its weights")
    raise ModelError(f"{name}: no such model; bundled are {', '.join(bundled())}, or give a model folder")


def describe(folder: str | Path) -> ModelCard:
    """Read the card of a model folder.

    Raises
    ------
    ModelError
        If the card cannot be read or lacks something, or a file of weights is missing.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ModelError(f"{folder}: format {card['format']!r}, this version reads {FORMAT!r}")
        model = ModelCard(
            name=str(card["name"]),
            recipe=str(card["recipe"]),
            mpp=float(card["mpp"]),
            halo=int(card["halo"]),
            settings=dict(card["settings"]),
            class_names=tuple(card["class_names"]),
            class_colors=tuple((int(r), int(g), int(b)) for r, g, b in card["class_colors"]),
            files={n: (str(file), str(digest)) for n, (file, digest) in card["files"].items()},
            about=dict(card["about"]),
            hash=_hash(card),
            calibration=_calibration(card.get("calibration")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}: not a wsiseg model; model.json is damaged ({error!r})") from error
    for file, _ in model.files.values():
        if Path(file).name != file or not (folder / file).is_file():
            raise ModelError(f"{folder}: the weights {file} are missing; copy the whole model folder")
    return model


def _calibration(kept: Mapping[str, Any] | None) -> Calibration | None:
    if kept is None:
        return None
    weights = {name: float(kept["weights"][name]) for name in (*FEATURES, "intercept")}
    return Calibration(weights, dict(kept["about"]))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write `model.json`; `card` lacks only its format."""
    (folder / "model.json").write_text(card_text({"format": FORMAT, **card}), encoding="utf-8")


def card_text(card: Mapping[str, Any]) -> str:
    """What `model.json` holds."""
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _hash(card: Mapping[str, Any]) -> str:
    decisive = {key: card[key] for key in ("recipe", "mpp", "halo", "settings", "files")}
    if card.get("calibration"):
        decisive["calibration"] = card["calibration"]["weights"]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
