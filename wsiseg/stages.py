"""A stage: one network of a recipe, what it is taught, by which loss and for how long.

Networks that are taught together are the submodules of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.samples import Sample

Networks = Mapping[str, nn.Module]
Options = Mapping[str, float]
OptionRanges = Mapping[str, tuple[float, float]]
"""Name of an option that a recipe reads -> the least and the most that it may be: a recipe's `OPTIONS`."""
Targets = Callable[[Sample, Options, Networks], NDArray[np.integer]]
"""(sample, options, networks of earlier stages) -> (T, H, W) int, 0 not labelled."""
Loss = Callable[[nn.Module, Tensor, Tensor, np.random.Generator], Tensor]
"""(network, images (B, 3, h, w), targets (B, T, h, w), generator) -> scalar."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast a stage learns.

    crops : int              training crops in all; 0: the weights of a trained model (`--from`) stay as they are
    batch : int              crops a step
    size : int               side of a crop, pixels; a multiple of 32
    learning_rate : float    at its highest
    shape : str              "cosine": a short rise before the highest rate, a cosine fall after it;
                             "constant": that rate throughout, as most papers have it; "plateau": that
                             rate, halved when the mean loss of an epoch has not fallen for `patience` epochs
    epoch : int              crops of an epoch, for "plateau"
    patience : int           epochs, for "plateau"
    tuning : float           factor on the learning rate where the weights are a trained model's (`--from`):
                             at the full rate a few clicks make it forget more than they teach
    frozen_norms : bool      batch norm keeps the statistics of the weights it starts from: those of a few images
                             are others
    optimiser : str          "adamw"; "adam": weight decay is part of the gradient, as in the papers;
                             "ranger" (`wsiseg.optimisers`)
    betas : (float, float)   of the optimiser
    weight_decay : float     of the optimiser
    average : float          decay of the running mean of the weights, which is what the stage gives; 0: the
                             last weights
    share : float            how far the weights go from where they started to what they were taught: between the
                             two lie networks that know both (Wortsman et al. 2022)
    """

    crops: int = 60_000
    batch: int = 16
    size: int = 224
    learning_rate: float = 1e-3
    shape: Literal["cosine", "constant", "plateau"] = "cosine"
    epoch: int = 2_000
    patience: int = 5
    tuning: float = 0.1
    frozen_norms: bool = False
    optimiser: Literal["adamw", "adam", "ranger"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    average: float = 0.998
    share: float = 1.0

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return max(1, self.crops // self.batch)

    def tuned(self) -> Schedule:
        """The schedule for weights that are already good."""
        return replace(self, learning_rate=self.learning_rate * self.tuning)

    def rate(self, step: int) -> float:
        """Learning rate at `step`, before any plateau has halved it."""
        if self.shape != "cosine":
            return self.learning_rate
        rise = min(200, max(1, self.steps // 10))
        fall = 0.5 * (1 + np.cos(np.pi * step / self.steps))
        return float(self.learning_rate * min(1.0, (step + 1) / rise) * fall)


@dataclass(frozen=True, slots=True)
class Stage:
    """One network of a recipe and how it is taught.

    name : str          the network is known by it, and its files
    network             a fresh network
    targets             what it is taught, image by image
    loss                a loss, or several that take turns, one a step
    schedule
    background : int    what targets hold where there surely is no nucleus
    init : str or None  earlier stage whose weights, where they fit, are the start
    given_by            network of a trained model (`--from`) that makes this stage needless: it is taken as it is
    nuclei              (networks up to this stage's, image (H, W, 3)) -> labels (H, W), to check it on
                        held-out images; None where it finds none
    part : str or None  submodule of the network that the stage's name stands for: it alone starts from other
                        weights and is what the stage gives, the rest helps to teach it; None: all of it
    """

    name: str
    network: Callable[[], nn.Module]
    targets: Targets
    loss: Loss | tuple[Loss, ...]
    schedule: Schedule
    background: int = 0
    init: str | None = None
    given_by: str | None = None
    nuclei: Callable[[Networks, NDArray[np.uint8]], NDArray[np.int32]] | None = None
    part: str | None = None

    @property
    def taken_over(self) -> str:
        """Name of the network of a trained model that is taken as it is; "" where it is only a start."""
        return self.given_by or ("" if self.schedule.crops else self.name)

    def kept(self, network: nn.Module) -> nn.Module:
        """What the stage's name stands for, of the network that it teaches."""
        return network if self.part is None else network.get_submodule(self.part)

    def loss_at(self, step: int) -> Loss:
        """The loss of a step: of several, number `step` modulo their number."""
        return self.loss[step % len(self.loss)] if isinstance(self.loss, tuple) else self.loss


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """A sample and the settings of its data set (pseudo-label parameters and the like)."""

    sample: Sample
    options: Options


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that a stage is checked on while it learns.

    samples            with points; masks, where there are any, are only reported on
    every : int        steps between checks
    patience : int     checks without a better one after which a stage ends; 0: it always runs to its end
    """

    samples: Sequence[Sample]
    every: int = 250
    patience: int = 0
