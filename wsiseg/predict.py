"""A loaded model: images in, maps out, maps into nuclei."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wsiseg import plugins, recipes
from wsiseg.errors import DeviceError, ModelError
from wsiseg.flips import averaged
from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.models import ModelCard, ModelRef, describe, digest, find_model, write_card
from wsiseg.networks.forward import for_inference, pad_to_stride, to_tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Networks of a recipe on a device, ready to predict."""

    card: ModelCard
    recipe: ModuleType
    settings: Any
    networks: Mapping[str, nn.Module]
    device: str

    def predict(
        self,
        images: NDArray[np.uint8],
        origins: Sequence[tuple[int, int]] | None = None,
        *,
        flips: int = 1,
    ) -> list[Maps]:
        """Maps of each image; on out-of-memory the batch is run in halves.

        Parameters
        ----------
        images : (B, H, W, 3) uint8 at the model's mpp    H and W are multiples of 32
        origins : (y, x) of each image's first pixel in the plan; (0, 0) where it is None
        flips : views that maps are averaged over (`wsiseg.flips`)

        Raises
        ------
        DeviceError
            If not even one image fits into the memory.
        """
        at = list(origins) if origins is not None else [(0, 0)] * len(images)
        maps = averaged(lambda seen: self._predict(seen, at), images, flips)
        return [
            replace(one, red=np.ascontiguousarray(i[..., 0])) for one, i in zip(maps, images, strict=True)
        ]

    def _predict(self, images: NDArray[np.uint8], at: list[tuple[int, int]]) -> list[Maps]:
        try:
            maps: list[Maps] = self.recipe.maps(self.networks, self.settings, to_tensor(images), at)
        except torch.OutOfMemoryError as error:
            if len(images) == 1:
                height, width = images.shape[1:3]
                raise DeviceError(
                    f"{self.device}: out of memory with one tile of {height} x {width} px; "
                    "give a smaller --tile-size, or --device cpu"
                ) from error
            torch.cuda.empty_cache()
            log.warning("out of memory with %d images at once; running them in halves", len(images))
            half = len(images) // 2
            return self._predict(images[:half], at[:half]) + self._predict(images[half:], at[half:])
        return maps

    def group(
        self, maps: Maps, frame: Rect, *, threshold: float | None = None, min_area: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        """Nuclei of one tile.

        Parameters
        ----------
        frame
            Where the maps lie in the plan.
        threshold, min_area
            Instead of the model's own.

        Returns
        -------
        labels : (H, W) int32    1..n without gaps
        embedding : (n, D) float32 mean embedding of each nucleus without its anchor, or None
        """
        result: tuple[NDArray[np.int32], NDArray[np.float32] | None] = self.recipe.group(
            maps, self.settings, frame, threshold=threshold, min_area=min_area, device=self.device
        )
        return result

    def ambiguous(self, maps: Maps, labels: NDArray[np.integer], count: int) -> NDArray[np.bool_] | None:
        """(count,) which of the nuclei 1..count of a tile were hard to tell apart; None where the recipe cannot say."""
        told: NDArray[np.bool_] | None = None
        if hasattr(self.recipe, "ambiguous"):
            told = self.recipe.ambiguous(maps, self.settings, labels, count)
        return told

    def segment(
        self,
        image: NDArray[np.uint8],
        *,
        threshold: float | None = None,
        min_area: int | None = None,
        flips: int = 1,
    ) -> NDArray[np.int32]:
        """(H, W) int32 nuclei of a whole image at the model's mpp, mirrored at its borders."""
        maps, inside = self.predict_whole(image, flips=flips)
        labels, _ = self.group(maps, Rect(0, 0, *maps.prob.shape[1:]), threshold=threshold, min_area=min_area)
        return relabelled(labels[inside])

    def predict_whole(self, image: NDArray[np.uint8], *, flips: int = 1) -> tuple[Maps, tuple[slice, slice]]:
        """Maps of a whole image at the model's mpp, mirrored out at its borders, and where it lies in them."""
        padded, inside = pad_to_stride(image, margin=self.card.halo // 2)
        return self.predict(padded[None], flips=flips)[0], inside

    def components(self, maps: Maps, *, threshold: float, min_area: int) -> NDArray[np.int32]:
        """(H, W) int32 connected components of the foreground: what the embeddings must beat."""
        labels: NDArray[np.int32] = self.recipe.components(maps, threshold=threshold, min_area=min_area)
        return labels


def relabelled(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Labels numbered 1..n without gaps, in their order.

    >>> relabelled(np.array([0, 7, 3, 7])).tolist()
    [0, 2, 1, 2]
    """
    present = np.unique(labels)
    number = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    number[present[present > 0]] = np.arange(1, (present > 0).sum() + 1)
    return number[labels]


def check_device(name: str) -> str:
    """The device that `name` means: "auto" is the first GPU where there is one, else the CPU.

    Raises
    ------
    DeviceError
        If a GPU is asked for that is not there, or the name means nothing.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if name == "cpu":
        return name
    if kind != "cuda" or (number and not number.isdecimal()):
        raise DeviceError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise DeviceError(f"device {name!r}: this machine has {count} CUDA devices; use auto or cpu")
    return name


def use_threads(count: int) -> None:
    """Have torch use `count` threads for an operation, in this process."""
    torch.set_num_threads(count)


@lru_cache(maxsize=1)
def load(ref: ModelRef) -> Model:
    """The model, loaded once a process.

    Raises
    ------
    ModelError
        If the weights are damaged or do not fit the recipe.
    DeviceError
        If the device is not there.
    """
    folder, device = Path(ref.checkpoint), check_device(ref.device)
    card = describe(folder)
    recipe = plugins.load(recipes, card.recipe)
    settings = _settings(folder, card, recipe)
    networks = _networks(folder, card, recipe, settings)
    return Model(card, recipe, settings, {n: for_inference(m, device) for n, m in networks.items()}, device)


def _settings(folder: Path, card: ModelCard, recipe: ModuleType) -> Any:
    try:
        return recipe.Settings(**card.settings)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder}: settings do not fit the recipe {card.recipe!r} ({error})") from error


def _networks(folder: Path, card: ModelCard, recipe: ModuleType, settings: Any) -> dict[str, nn.Module]:
    """The networks of a recipe with the weights of a model folder."""
    try:
        networks: dict[str, nn.Module] = {n: build() for n, build in recipe.networks(settings).items()}
        for name, network in networks.items():
            network.load_state_dict(_weights(folder, *card.files[name]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder}: the weights do not fit the recipe {card.recipe!r} as it is set ({reason})"
        ) from error
    return networks


def load_networks(name: str, recipe: str, settings: Any) -> dict[str, nn.Module]:
    """The networks of a model, to go on training from, where they are a recipe's and of one size; heads may differ.

    The model may be of another recipe whose networks go by the same names: masks of all nuclei teach further what
    points have taught.

    Raises
    ------
    ModelError
        If there is no such model, or its networks are of another kind or size.
    """
    folder = find_model(name)
    card = describe(folder)
    module = plugins.load(recipes, card.recipe)
    networks = _networks(folder, card, module, _settings(folder, card, module))
    builds = plugins.load(recipes, recipe).networks(settings)
    if not networks.keys() & builds.keys():
        raise ModelError(
            f"{folder}: a model of the recipe {card.recipe!r}, whose networks are {', '.join(networks)}; "
            f"those of the configuration's recipe, {recipe!r}, are {', '.join(builds)}"
        )
    for network, build in builds.items():
        if network in networks and not _alike(build(), networks[network]):
            raise ModelError(
                f"{folder}: its {network} is of another size than the configuration's; depth and width must agree"
            )
    return networks


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether nine in ten tensors have the same names and shapes."""
    shapes = [{n: w.shape for n, w in network.state_dict().items()} for network in (one, other)]
    return len(shapes[0].items() & shapes[1].items()) >= 0.9 * max(map(len, shapes))


def _weights(folder: Path, file: str, expected: str) -> dict[str, torch.Tensor]:
    if digest(folder / file) != expected:
        raise ModelError(f"{folder / file}: damaged (its SHA-256 is not the card's); copy the model again")
    return {n: w.float() if w.is_floating_point() else w for n, w in load_file(folder / file).items()}


def umask() -> int:
    """What new files of this process may not be; it can only be read by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current


def save_model(networks: Mapping[str, nn.Module], folder: Path, card: Mapping[str, Any]) -> ModelCard:
    """Write networks as float16 safetensors with their card; `card` lacks only `files`.

    The card is written last: a folder without one is no model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").unlink(missing_ok=True)
    files = {}
    for name, network in networks.items():
        path = folder / f"{name}.safetensors"
        state = network.state_dict().items()
        save_file({n: (w.half() if w.is_floating_point() else w).cpu().contiguous() for n, w in state}, path)
        # safetensors keeps its files to their owner; a model is often shared by a group.
        path.chmod(0o666 & ~umask())
        files[name] = (path.name, digest(path))
    write_card(folder, {**card, "files": files})
    load.cache_clear()  # this process may have loaded what the folder held before
    return describe(folder)
