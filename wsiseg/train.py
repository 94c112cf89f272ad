"""The training loop: one stage of a recipe after another, resumable to the same result."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.ahead import ahead
from wsiseg.augment import Augmentation, augmented_crop
from wsiseg.errors import ConfigError
from wsiseg.learning import Check, Clock, Curve, Plateau, save
from wsiseg.optimisers import Ranger
from wsiseg.parallel import Processes
from wsiseg.stages import HeldOut, Stage, TrainingImage

log = logging.getLogger(__name__)

OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "ranger": Ranger,
}

CHECKPOINT_SECONDS = 60.0
"""Seconds between checkpoints: what a killed run loses at most."""

Progress = Callable[[str, int, int, float], None]
"""(stage, step, steps, loss): called after each step."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What all stages of a run have in common."""

    folder: Path
    device: str
    clock: Clock
    processes: Processes
    progress: Progress | None


def train(
    stages: Sequence[Stage],
    images: Sequence[TrainingImage],
    folder: Path,
    *,
    augmentation: Augmentation,
    seed: int = 0,
    device: str = "cpu",
    steps: int | None = None,
    start: Mapping[str, nn.Module] | None = None,
    held_out: HeldOut | None = None,
    processes: Processes = Processes(),  # noqa: B008  # frozen
    progress: Progress | None = None,
) -> dict[str, nn.Module]:
    """Train every stage in order; a run that was cut off goes on from its last checkpoint.

    Parameters
    ----------
    folder
        Holds checkpoints (`STAGE.ckpt`), learning curves (`STAGE.csv`), finished weights (`STAGE.pt`) and how long all
        took, sittings that were cut off included (`seconds.txt`, `learning.minutes_of`).
    steps
        Only so many steps of every stage: a dry run.
    start
        Networks of a trained model, by stage name: their weights, where they fit, are the start of the
        stages instead of what a stage itself says.
    held_out
        Images that a stage is checked on as it learns; its best weights by the points of these are kept.
    processes
        Those that train together (`wsiseg.parallel`).
    progress
        Called in the first process.

    Returns
    -------
    networks by stage name, with the averaged weights, in evaluation mode; as far from where they started as the `share` of
    their schedules says, while later stages learn from all that was taught

    Raises
    ------
    ConfigError
        If there is nothing to train on, or a stage has 0 crops and `start` no network for it.
    """
    if not any(len(image.sample.points) for image in images):
        raise ConfigError(
            f"{len(images)} training images hold no point; at least one clicked nucleus is needed"
        )
    as_they_are = {stage.name for stage in stages if start is not None and stage.taken_over in start}
    for stage in stages:
        if not (stage.schedule.crops or stage.name in as_they_are or (folder / f"{stage.name}.pt").exists()):
            raise ConfigError(
                f"{stage.name} has crops = 0 in [settings] and no trained network to stay as it is; "
                "give it crops, or start from a model (--from) that has such a network"
            )
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, device, Clock(folder), processes, progress)
    networks: dict[str, nn.Module] = {}
    result: dict[str, nn.Module] = {}
    for number, stage in enumerate(stages):
        processes.wait()
        torch.manual_seed(seed + number)
        network = stage.network().to(device)
        as_it_is = stage.name in as_they_are
        if start is not None and as_it_is:
            _start_from(stage.kept(network), start[stage.taken_over])
        elif start is not None and stage.name in start:
            _start_from(stage.kept(network), start[stage.name])
            stage = replace(stage, schedule=stage.schedule.tuned())
        elif stage.init is not None:
            _start_from(stage.kept(network), networks[stage.init])
        began, finished = copy.deepcopy(network), folder / f"{stage.name}.pt"
        if finished.exists():
            network.load_state_dict(torch.load(finished, map_location=device, weights_only=True))
        elif not as_it_is:
            targets = [stage.targets(i.sample, i.options, networks) for i in images]
            pixels = [i.sample.image for i in images]
            crops = _batches(pixels, targets, stage, augmentation, seed=(seed, number), processes=processes)
            total = stage.schedule.steps if steps is None else min(steps, stage.schedule.steps)
            check = None if held_out is None else Check(stage, held_out, networks, folder, device)
            network = _fit(run, stage, network, crops, total, seed=(seed, number), check=check)
            processes.wait()
            if processes.first:
                save(network.state_dict(), finished)
                for left in ("ckpt", "best"):
                    (folder / f"{stage.name}.{left}").unlink(missing_ok=True)
        if processes.first:
            run.clock.save()
        networks[stage.name] = stage.kept(network.eval())
        # Later stages learn from all that this one was taught; only what is given goes part of the way.
        result[stage.name] = stage.kept(_between(began, network, stage.schedule.share).eval())
    return result


def blended(
    before: Mapping[str, nn.Module], after: Mapping[str, nn.Module], share: float
) -> dict[str, nn.Module]:
    """The networks `after`, each weight brought back towards what it was: `share` of the way goes on.

    Between a model and what a few images made of it lie models that know both (Wortsman et al. 2022).
    """
    return {name: _between(before[name], network, share) for name, network in after.items()}


def alike(before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]) -> bool:
    """Whether all networks `after` are among those `before`, tensor by tensor of one shape: what `blended` needs."""
    shapes = [
        {(name, n): w.shape for name, network in networks.items() for n, w in network.state_dict().items()}
        for networks in (before, after)
    ]
    return shapes[1].items() <= shapes[0].items()


def _between(before: nn.Module, after: nn.Module, share: float) -> nn.Module:
    old, new, network = before.state_dict(), after.state_dict(), copy.deepcopy(after)
    network.load_state_dict(
        {n: old[n].to(w).lerp(w, share) if w.is_floating_point() else w for n, w in new.items()}
    )
    return network


def _start_from(network: nn.Module, source: nn.Module) -> None:
    """Take the weights that fit; a network of another size has few of them."""
    own = network.state_dict()
    fitting = {n: w for n, w in source.state_dict().items() if n in own and own[n].shape == w.shape}
    if len(fitting) < len(own) / 2:
        raise ConfigError("the networks to start from are of another size; depth and width must agree")
    network.load_state_dict(fitting, strict=False)


def _fit(
    run: _Run,
    stage: Stage,
    network: nn.Module,
    batches: Callable[[int, int], Iterator[tuple[Tensor, Tensor]]],
    total: int,
    *,
    seed: tuple[int, int],
    check: Check | None,
) -> nn.Module:
    """The loop; gives the network with its averaged weights, or the best of them on held-out images."""
    schedule, kind = stage.schedule, torch.device(run.device).type
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    network.train()
    if schedule.frozen_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    optimiser = OPTIMISERS[schedule.optimiser](
        network.parameters(), lr=1.0, betas=schedule.betas, weight_decay=schedule.weight_decay
    )
    mean = {n: w.detach().clone() for n, w in network.state_dict().items()}
    checkpoint = run.folder / f"{stage.name}.ckpt"
    plateau = Plateau(schedule)
    start = _resume(checkpoint, network, optimiser, mean, plateau, check, run.device)
    saved, curve = time.monotonic(), Curve(run.folder / f"{stage.name}.csv", start)
    together = run.processes.wrap(network, run.device)
    for step, (images, targets) in enumerate(batches(start, total), start):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step) * plateau.factor
        torch.manual_seed(hash((*seed, step)) % 2**31)  # dropout, whatever came before a resumption
        rng = np.random.default_rng([*seed, step, 1])
        images = images.to(run.device, memory_format=torch.channels_last)
        with torch.autocast(kind, torch.bfloat16):
            loss = stage.loss_at(step)(together, images, targets.to(run.device), rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        _average(mean, network, min(schedule.average, (step + 1) / (step + 10)))
        curve.add(step, loss.item())
        plateau.add(step, loss.item(), run.processes, run.device)
        if run.progress is not None and run.processes.first:
            run.progress(stage.name, step + 1, total, curve.recent)
        if check is not None and ((step + 1) % check.held_out.every == 0 or step + 1 == total):
            curve.checked(check.score(mean, run.processes))
            if check.enough:
                log.info("%s ends after %d steps: no better for %d checks", stage.name, step + 1, check.since)
                break
        if time.monotonic() - saved > CHECKPOINT_SECONDS and run.processes.first:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            checked = None if check is None else check.state()
            so_far = {"mean": mean, "step": step + 1, "plateau": plateau.state(), "check": checked}
            save({**state, **so_far}, checkpoint)
            run.clock.save()
            curve.flush()
            saved = time.monotonic()
    if run.processes.first:
        curve.flush()
    network.load_state_dict(mean if check is None else check.best(mean))
    return network


def _average(mean: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean[name].lerp_(value, 1 - decay)
            else:
                mean[name].copy_(value)


def _resume(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    mean: dict[str, Tensor],
    plateau: Plateau,
    check: Check | None,
    device: str,
) -> int:
    """Load a checkpoint where there is one; the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    for name, value in state["mean"].items():
        mean[name].copy_(value)
    if "plateau" in state:  # a checkpoint of an earlier version has none
        plateau.restore(state["plateau"])
    if check is not None and state.get("check") is not None:
        check.highest, check.since = state["check"]["highest"], int(state["check"]["since"])
    log.info("%s goes on from step %d", path.stem, state["step"])
    return int(state["step"])


def _batches(
    images: Sequence[NDArray[np.uint8]],
    targets: Sequence[NDArray[np.integer]],
    stage: Stage,
    augmentation: Augmentation,
    *,
    seed: tuple[int, int],
    processes: Processes,
) -> Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]:
    """Batches of step `start` to `total`, made one ahead in a thread; each depends on its step alone."""
    share = np.array([image.shape[0] * image.shape[1] for image in images], float)
    share /= share.sum()
    batch = processes.share_of(stage.schedule.batch)
    # One process draws as if there were no others, so that its results do not depend on this.
    which_process = [processes.rank] if processes.size > 1 else []

    def make(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([*seed, step, 0, *which_process])
        crops, marks = [], []
        for which in rng.choice(len(images), size=batch, p=share):
            crop, mark = augmented_crop(
                images[which],
                targets[which],
                augmentation,
                size=stage.schedule.size,
                background=stage.background,
                rng=rng,
            )
            crops.append(crop)
            marks.append(mark)
        return torch.stack(crops), torch.stack(marks)

    def run(start: int, total: int) -> Iterator[tuple[Tensor, Tensor]]:
        # One thread of torch for the crops: they must not wait for the cores that the networks keep busy.
        return ahead(map(make, range(start, total)), partial(torch.set_num_threads, 1))

    return run
