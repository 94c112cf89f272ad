"""Encoders that somebody else trained: torchvision-shaped ResNet checkpoints, from a file or a URL."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from urllib.error import URLError

import torch
from torch import Tensor, nn

from wsiseg.errors import ConfigError
from wsiseg.networks.resunet import load_encoder

DEVIATION = (0.229, 0.224, 0.225)
"""What torchvision divides red, green and blue by; our networks see plain 0..1, so the first convolution does it."""


def with_encoder(build: Callable[[], nn.Module], where: str) -> nn.Module:
    """A fresh network whose encoder is that of a checkpoint.

    Raises
    ------
    ConfigError
        If the checkpoint cannot be read, or nothing of it fits.
    """
    network = build()
    weights = read_checkpoint(where)
    if "conv1.weight" in weights:
        weights["conv1.weight"] = weights["conv1.weight"] / torch.tensor(DEVIATION)[:, None, None]
    try:
        load_encoder(network, weights)
    except ValueError as error:
        raise ConfigError(f"init {where!r}: {error}") from error
    return network


def read_checkpoint(where: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a file, or an https URL that is fetched once and kept in torch's cache.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no tensors by name.
    """
    try:
        if where.startswith("https://"):
            state = torch.hub.load_state_dict_from_url(where, map_location="cpu", weights_only=True)
        else:
            state = torch.load(where, map_location="cpu", weights_only=True)
    except (OSError, URLError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"init {where!r}: cannot be read ({reason}); "
            "give a torchvision-shaped ResNet checkpoint (.pth) as a path or an https URL"
        ) from error
    inner = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    tensors = {n: w.float() for n, w in inner.items() if isinstance(w, Tensor) and w.is_floating_point()}
    if not tensors:
        raise ConfigError(f"init {where!r}: holds no weights by name; a ResNet's state dict is expected")
    return tensors
