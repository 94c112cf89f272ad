"""Training configurations: TOML files that hold only what differs from a recipe's defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wsiseg import plugins, recipes
from wsiseg.augment import Augmentation
from wsiseg.clicked_slides import read_slide_samples
from wsiseg.corrections import Corrected, read_corrections
from wsiseg.errors import ConfigError, DataError
from wsiseg.models import describe, find_model
from wsiseg.points import ClickFormat
from wsiseg.samples import Sample, at_mpp, read_samples, read_split
from wsiseg.slides.slide import SlideRef
from wsiseg.stages import HeldOut, OptionRanges, Options, Schedule, TrainingImage
from wsiseg.version import __version__, commit


class Folder(BaseModel):
    """A folder of labelled images below the data folder (`wsiseg.samples.read_samples`).

    mpp : float or None                      microns per pixel of its images, which are brought to the model's; None:
                                             they have the model's
    class_column, class_names, lenient       how its clicks are written (`wsiseg.points.ClickFormat`)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    split: str = "train"
    mpp: float | None = Field(default=None, ge=0.05, le=5)
    points_from_masks: bool = False
    class_column: str = "class"
    class_names: dict[str, str] = Field(default_factory=dict)
    lenient: bool = False

    @property
    def clicks(self) -> ClickFormat:
        """How its files of points are written."""
        return ClickFormat(self.class_column, self.class_names, self.lenient)


class DataSet(Folder):
    """Images to train on, and the pseudo-label parameters that suit them."""

    options: dict[str, float] = Field(default_factory=dict)


class HeldOutData(Folder):
    """Images that training is checked on, and how often (`wsiseg.stages.HeldOut`)."""

    split: str = "val"
    every: int = Field(default=250, ge=1)
    patience: int = Field(default=0, ge=0)


class Config(BaseModel):
    """A training configuration.

    name : str            of the model
    recipe : str          plug-in of `wsiseg.recipes`
    mpp : float           microns per pixel of what the model sees
    halo : int            pixels the model must see around a core; with 192 the same nuclei are found however a
                          slide is cut, with 128 nearly the same
    data                  data sets, below the data folder; none, where only slides are trained on
    options               pseudo-label parameters of clicked slides
    held_out              data set that training is checked on, or none
    classes               what points may be classified as; anything, where it is empty
    settings              the recipe's `Settings`, validated
    augmentation          how far crops vary
    about                 goes into the model card: data, licence, citation
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str
    recipe: str
    mpp: float = Field(default=0.25, ge=0.05, le=5)
    halo: int = Field(default=192, ge=0, multiple_of=64)
    seed: int = 0
    data: tuple[DataSet, ...] = ()
    options: dict[str, float] = Field(default_factory=dict)
    held_out: HeldOutData | None = None
    classes: tuple[str, ...] = ()
    settings: Any = None
    augmentation: Augmentation = Augmentation()
    about: Mapping[str, Any] = Field(default_factory=dict)

    def mpp_of(self, data: Folder) -> float:
        """Microns per pixel of the images of one of its data sets."""
        return data.mpp or self.mpp

    def card(self, start: str | None = None) -> dict[str, Any]:
        """What `predict.save_model` writes beside the weights: inference settings apart from the training's.

        Of the model that training started from, by bundled name or folder, it repeats what that one's card says of itself,
        its licence above all: whoever was trained further still carries it.

        A recipe whose classes are settings of its own has them there, `class_names` and `class_colors`.
        """
        recipe = plugins.load(recipes, self.recipe)
        every = asdict(self.settings)
        schedules = {name: value for name, value in every.items() if isinstance(value, dict)}
        code = {"version": __version__, "commit": commit()}
        before = None if start is None else describe(find_model(start))
        begun = {} if before is None else {"from": {"name": before.name, "hash": before.hash, **before.about}}
        training = {"code": code, "seed": self.seed, "augmentation": asdict(self.augmentation), **schedules}
        return {
            "name": self.name,
            "recipe": self.recipe,
            "mpp": self.mpp,
            "halo": self.halo,
            "settings": {name: value for name, value in every.items() if name not in schedules},
            "class_names": list(getattr(self.settings, "class_names", recipe.CLASS_NAMES)),
            "class_colors": [list(c) for c in getattr(self.settings, "class_colors", recipe.CLASS_COLORS)],
            "about": {**self.about, **begun, "training": training},
        }


def read_config(path: Path) -> Config:
    """Read and validate a TOML file.

    Raises
    ------
    ConfigError
        If it cannot be read, or a setting or an option is unknown or outside its range; it is named.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        config = Config.model_validate(raw)
        recipe = plugins.load(recipes, config.recipe)
        settings = TypeAdapter(recipe.Settings).validate_python(config.settings or {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise ConfigError(f"{path}: {where}: {first['msg']}{got}") from error
    for where, options in [("options", config.options)] + [
        (f"data.{i}.options", data.options) for i, data in enumerate(config.data)
    ]:
        _check_options(f"{path}: {where}", options, config.recipe, getattr(recipe, "OPTIONS", None))
    return config.model_copy(update={"settings": settings})


def _check_options(where: str, options: Options, recipe: str, allowed: OptionRanges | None) -> None:
    """Options are those that the recipe reads; a recipe from elsewhere need not say which (None)."""
    if allowed is None:
        return
    for name, value in options.items():
        if name not in allowed:
            known = f"choose one of {', '.join(sorted(allowed))}" if allowed else "it has none; leave it out"
            raise ConfigError(f"{where}.{name}: no option of the recipe {recipe}; {known}")
        least, most = allowed[name]
        if not least <= value <= most:  # nor is nan
            raise ConfigError(f"{where}.{name}: {value:g}; allowed are {least:g} to {most:g}")


def tuning_config(model: str, *, crops: int) -> Config:
    """A configuration that trains a model further: its own settings, and `crops` crops a stage.

    Where the model's recipe cannot learn from corrected nuclei, the one it names in `CORRECTED_BY` does.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    card = describe(find_model(model))
    name = getattr(plugins.load(recipes, card.recipe), "CORRECTED_BY", card.recipe)
    recipe = plugins.load(recipes, name)
    settings = TypeAdapter(recipe.Settings).validate_python(dict(card.settings))
    schedule = Schedule(crops=crops, frozen_norms=True)
    if hasattr(recipe, "corrected"):
        settings = recipe.corrected(settings, schedule)
    else:
        every = {f.name: getattr(settings, f.name) for f in fields(settings)}
        short: dict[str, Any] = {
            n: replace(v, crops=crops, frozen_norms=True) for n, v in every.items() if isinstance(v, Schedule)
        }
        if "init" in every:
            short["init"] = "random"  # the model is the start, whatever its own was
        settings = replace(settings, **short)
    return Config(
        name=f"{card.name}-corrected",
        recipe=name,
        mpp=card.mpp,
        halo=card.halo,
        classes=card.class_names if len(card.class_names) > 1 else (),
        settings=settings,
        about={"labels": "corrected nuclei"},
    )


def data_folder(given: Path | None) -> Path:
    """Where labelled images lie: what was given, else the variable WSISEG_DATA.

    Raises
    ------
    DataError
        If neither says so, or the folder is not there.
    """
    folder = given or (Path(os.environ["WSISEG_DATA"]) if "WSISEG_DATA" in os.environ else None)
    if folder is None:
        raise DataError("no folder of labelled images; give --data FOLDER or set WSISEG_DATA")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of labelled images")
    return folder


def read_images(
    config: Config, data: Path | None, slides: Path | None, *, from_masks: bool = False
) -> list[TrainingImage]:
    """What there is to train on: clicked slides, and the data sets unless only slides are given."""
    images = [] if slides is None else read_clicked_images(config, slides)
    if data is not None or slides is None:
        images += read_training_images(config, data_folder(data), from_masks=from_masks)
    return images


def read_corrected_images(
    config: Config, files: Sequence[Path], slides: Sequence[str], *, slide_mpp: float | None = None
) -> tuple[list[TrainingImage], list[Sample]]:
    """Corrected nuclei to learn from, and those that are held out (`wsiseg.corrections`).

    Raises
    ------
    ConfigError
        If there are not as many slides as files.
    """
    if len(files) != len(slides):
        raise ConfigError(
            f"{len(files)} files of --corrections and {len(slides)} of --slide; give the slide of each"
        )
    corrected = [
        Corrected(SlideRef(slide, mpp=slide_mpp), file) for file, slide in zip(files, slides, strict=True)
    ]
    taught, held_out = read_corrections(corrected, mpp=config.mpp, classes=config.classes)
    return [TrainingImage(sample, config.options) for sample in taught], held_out


def read_clicked_images(config: Config, manifest: Path) -> list[TrainingImage]:
    """The annotated regions of the slides of a manifest (`wsiseg.clicked_slides`)."""
    samples = read_slide_samples(manifest, mpp=config.mpp, classes=config.classes)
    return [TrainingImage(sample, config.options) for sample in samples]


def read_training_images(config: Config, root: Path, *, from_masks: bool = False) -> list[TrainingImage]:
    """Images of every data set of a configuration, with their options.

    Points are the centres of masks where `from_masks` or the data set says so.

    Raises
    ------
    ConfigError
        If the configuration names no data set.
    """
    if not config.data:
        raise ConfigError(
            f"{config.name}: names no data set; give --slides, or [[data]] in the configuration"
        )
    images = []
    for data in config.data:
        samples = read_folder(config, data, root, from_masks=from_masks)
        images += [TrainingImage(sample, data.options) for sample in samples]
    return images


def read_folder(config: Config, data: Folder, root: Path, *, from_masks: bool = False) -> list[Sample]:
    """The images of one part of one data set."""
    folder = root / data.folder
    samples = read_samples(
        folder,
        read_split(folder, data.split),
        mpp=config.mpp_of(data),
        from_masks=from_masks or data.points_from_masks,
        classes=config.classes,
        clicks=data.clicks,
    )
    return [at_mpp(sample, config.mpp) for sample in samples]


def read_held_out(
    config: Config,
    data: Path | None,
    slides: Path | None,
    *,
    patience: int | None = None,
    from_masks: bool = False,
) -> HeldOut | None:
    """What training is checked on: the clicked slides of a manifest, else the configuration's data set, else nothing.

    `patience` is taken instead of the configuration's.

    Raises
    ------
    ConfigError
        If there is a patience, but nothing to check on.
    """
    of_config = config.held_out
    if slides is not None:
        samples = read_slide_samples(slides, mpp=config.mpp, classes=config.classes)
    elif of_config is not None:
        samples = read_folder(config, of_config, data_folder(data), from_masks=from_masks)
    elif patience:
        raise ConfigError(
            "--patience: nothing is held out to be patient with; give --held-out, or [held_out] in the configuration"
        )
    else:
        return None
    checks = of_config or HeldOutData(folder="")
    return HeldOut(samples, checks.every, checks.patience if patience is None else patience)
