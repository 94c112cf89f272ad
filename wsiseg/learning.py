"""How far a stage has come: its learning curve, its plateaus, and what it is worth on held-out images."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg import metrics
from wsiseg.parallel import Processes
from wsiseg.samples import Sample
from wsiseg.stages import HeldOut, Schedule, Stage


class Check:
    """What a stage is worth on held-out images, as it learns; its best weights lie in `STAGE.best`."""

    def __init__(
        self, stage: Stage, held_out: HeldOut, networks: Mapping[str, nn.Module], folder: Path, device: str
    ) -> None:
        self.stage, self.held_out, self.networks, self.device = stage, held_out, dict(networks), device
        self.file = folder / f"{stage.name}.best"
        self.highest, self.since = -1.0, 0

    @property
    def enough(self) -> bool:
        """Whether the stage has not become better for too long."""
        return 0 < self.held_out.patience <= self.since

    def score(self, weights: Mapping[str, Tensor], processes: Processes) -> dict[str, float]:
        """Point F1, and AJI where there are masks; empty for a stage that finds no nuclei."""
        if self.stage.nuclei is None:
            return {}
        scores: dict[str, float] = {}
        if processes.first:
            network = self.stage.network().to(self.device)
            network.load_state_dict(weights)
            trained = {**self.networks, self.stage.name: self.stage.kept(network.eval())}
            pairs = [(s, self._nuclei(trained, s)) for s in self.held_out.samples]
            scores["point F1"] = float(np.mean([metrics.point_f1(s.points, f) for s, f in pairs]))
            masks = [metrics.aji_authors(s.labels, f) for s, f in pairs if s.labels is not None]
            if masks:
                scores["AJI (authors)"] = float(np.mean(masks))
        points = processes.agree(scores.get("point F1", 0.0), self.device)
        self.since += 1
        if points > self.highest:
            self.highest, self.since = points, 0
            if processes.first:
                save(dict(weights), self.file)
        return scores

    def _nuclei(self, trained: Mapping[str, nn.Module], sample: Sample) -> NDArray[np.int32]:
        assert self.stage.nuclei is not None
        found = self.stage.nuclei(trained, sample.image)
        return found if sample.roi is None else found * sample.roi

    def best(self, last: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights of the highest score; the last ones where nothing was scored."""
        if not self.file.exists():
            return last
        weights: Mapping[str, Tensor] = torch.load(self.file, map_location=self.device, weights_only=True)
        return weights

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"highest": self.highest, "since": self.since}


class Plateau:
    """What the learning rate is multiplied by: halved whenever an epoch's mean loss has not fallen for long enough.

    It stays 1 where the schedule's shape is not "plateau".
    """

    def __init__(self, schedule: Schedule) -> None:
        self.steps = max(1, schedule.epoch // schedule.batch) if schedule.shape == "plateau" else 0
        self.patience = schedule.patience
        self.factor, self.lowest, self.since, self.total = 1.0, float("inf"), 0, 0.0

    def add(self, step: int, loss: float, processes: Processes, device: str) -> None:
        """The loss of a step; the last one of an epoch may halve the factor."""
        self.total += loss
        if not self.steps or (step + 1) % self.steps:
            return
        mean, self.total = processes.agree(self.total / self.steps, device), 0.0
        self.since = 0 if mean < self.lowest else self.since + 1
        self.lowest = min(mean, self.lowest)
        if self.since == self.patience:
            self.factor, self.since = self.factor / 2, 0

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"factor": self.factor, "lowest": self.lowest, "since": self.since, "total": self.total}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what a checkpoint holds."""
        self.factor, self.lowest, self.total = state["factor"], state["lowest"], state["total"]
        self.since = int(state["since"])


class Curve:
    """The learning curve of a stage as CSV: step, mean loss since the row before, and what checks gave."""

    def __init__(self, path: Path, start: int) -> None:
        self.path, self.recent = path, float("nan")
        self.losses: list[float] = []
        self.rows: list[dict[str, str]] = []
        self.step = start
        if start and path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < start]
            self.recent = next((float(r["loss"]) for r in reversed(self.rows) if r.get("loss")), self.recent)

    def add(self, step: int, loss: float) -> None:
        """The loss of a step."""
        self.step = step
        self.losses.append(loss)
        full = len(self.losses) == 50
        if full or not self.rows or math.isnan(self.recent):
            self.recent = float(np.mean(self.losses))
        if full:
            self.rows.append({"step": str(step), "loss": f"{self.recent:.6f}"})
            self.losses = []

    def checked(self, scores: Mapping[str, float]) -> None:
        """What a check gave after the last step."""
        if scores:
            self.rows.append({"step": str(self.step), **{n: f"{v:.6f}" for n, v in scores.items()}})

    def flush(self) -> None:
        """Write the file; it appears complete."""
        columns = list(dict.fromkeys(["step", "loss", *(name for row in self.rows for name in row)]))
        with _complete(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class Clock:
    """How long a run has trained, in all its sittings; one that was killed counts up to its last checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.path, self.began = folder / "seconds.txt", time.monotonic()
        self.before = float(self.path.read_text()) if self.path.exists() else 0.0

    def save(self) -> None:
        """Write the file; it appears complete."""
        with _complete(self.path) as temporary:
            temporary.write_text(f"{self.before + time.monotonic() - self.began:.1f}\n")


def minutes_of(folder: Path) -> float:
    """How long the run in a folder has trained, in all its sittings, to a tenth of a minute."""
    return round(float((folder / "seconds.txt").read_text()) / 60, 1)


def save(state: object, path: Path) -> None:
    """Write weights or a checkpoint with `torch.save`; it appears complete."""
    with _complete(path) as temporary:
        torch.save(state, temporary)


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when all went well.

    Exports have one that reaches the disk first (`wsiseg.export`); training runs where that cannot be imported.
    """
    temporary = path.with_name(path.name + ".part")
    yield temporary
    os.replace(temporary, path)
