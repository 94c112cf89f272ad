"""Detection probabilities held against masks, and made to agree with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsiseg import measure, metrics
from wsiseg.calibration import Bin, Calibration, expected_error, features, fit, left_out, reliability
from wsiseg.errors import DataError, ModelError
from wsiseg.evaluate import labels_of
from wsiseg.export import complete
from wsiseg.geometry import Rect
from wsiseg.models import ModelCard, card_text, describe
from wsiseg.predict import Model, load, relabelled
from wsiseg.samples import Sample, at_mpp
from wsiseg.worker import described


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Nuclei of labelled images, and whether each meets a true one at an IoU above 0.5.

    measured : (N, 4)          what a calibration looks at (`wsiseg.calibration.FEATURES`)
    score : (N,)               mean foreground probability
    probability : (N,)         what the model says of them as it is
    met : (N,) bool
    ambiguous : (N,) bool      flagged; all False where the recipe flags none
    image : (N,) int64         number of its image
    """

    measured: NDArray[np.float64]
    score: NDArray[np.float32]
    probability: NDArray[np.float32]
    met: NDArray[np.bool_]
    ambiguous: NDArray[np.bool_]
    image: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.met)


def judge(samples: Sequence[Sample], model: Model, *, flips: int = 1) -> Judged:
    """What a model finds in images with masks, but for nuclei that the images' borders cut.

    Raises
    ------
    DataError
        If there is no nucleus to judge, or a sample has no labels.
    """
    parts = [_judged(sample, model, number, flips) for number, sample in enumerate(samples)]
    if not sum(map(len, parts)):
        raise DataError(f"no nucleus was found in {len(parts)} images; a calibration needs hundreds")
    names = Judged.__slots__
    return Judged(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _judged(sample: Sample, model: Model, number: int, flips: int) -> Judged:
    sample = at_mpp(sample, model.card.mpp)
    truth = labels_of(sample)
    maps, inside = model.predict_whole(sample.image, flips=flips)
    labels, _ = model.group(maps, Rect(0, 0, *maps.prob.shape[1:]))
    found = relabelled(labels[inside])
    count = int(found.max(initial=0))
    if not maps.aligned:
        raise ModelError(
            "embeddings of overlapping patches cannot be calibrated; use another form of coordinates"
        )
    maps = maps.crop(inside)
    table = described(model, maps, found, None)
    score = np.stack([measure.means(prob, found, count) for prob in maps.prob]).sum(0)
    cut = np.unique(np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]]))
    kept = np.setdiff1d(np.arange(1, count + 1), cut) - 1
    met = np.zeros(count, bool)
    pairs = metrics.overlaps(truth, found)
    met[pairs.pred[pairs.jaccard > 0.5]] = True
    solidity = measure.solidity(table.rings)
    return Judged(
        features(score, table.area * model.card.mpp**2, solidity)[kept],
        score[kept],
        table.score[kept],
        met[kept],
        table.columns.get(measure.AMBIGUOUS, np.zeros(count, np.float32))[kept] > 0,
        np.full(len(kept), number),
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration, and how well it does on images that were left out of its fit.

    before, after : list of Bin     of the mean foreground probability, and of the calibrated one
    """

    calibration: Calibration
    before: list[Bin]
    after: list[Bin]


def calibrated(judged: Judged, about: Mapping[str, Any]) -> Fitted:
    """Fit a calibration to judged nuclei of two images or more.

    Raises
    ------
    DataError
        If there are too few images, or all nuclei met a true one, or none did.
    """
    images = len(np.unique(judged.image))
    if images < 2:
        raise DataError(f"{images} image holds nuclei; two are needed, to see how one that is left out does")
    try:
        after = left_out(judged.measured, judged.met, judged.image)
        facts = {**about, "nuclei": len(judged), "met": round(float(judged.met.mean()), 4)}
        known = np.isfinite(after)
        bins = reliability(after[known], judged.met[known])
        found = fit(judged.measured, judged.met, {**facts, "left_out_error": round(expected_error(bins), 4)})
    except ValueError as error:
        raise DataError(f"cannot be calibrated: {error}") from error
    return Fitted(found, reliability(judged.score, judged.met), bins)


def keep(folder: Path, calibration: Calibration) -> ModelCard:
    """Give a model folder this calibration, in place of one that it had.

    Raises
    ------
    OutputError
        If its card cannot be written.
    """
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    made = {"weights": dict(calibration.weights), "about": dict(calibration.about)}
    with complete(folder / "model.json") as temporary:
        temporary.write_text(card_text({**card, "calibration": made}), encoding="utf-8")
    load.cache_clear()  # this process has loaded the model without it
    return describe(folder)


def draw_reliability(curves: Mapping[str, Sequence[Bin]], picture: Path) -> None:
    """What was said against what was so, a line a name, and how many nuclei each bin holds."""
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    width = 0.08 / max(1, len(curves))
    for number, (name, bins) in enumerate(curves.items()):
        said, met = [b.said for b in bins], [b.met for b in bins]
        above.plot(said, met, marker="o", label=f"{name} (error {expected_error(bins):.3f})")
        at = [(b.low + b.high) / 2 + (number - (len(curves) - 1) / 2) * width for b in bins]
        below.bar(at, [b.nuclei for b in bins], width=width)
    above.set(ylabel="share that meets a true nucleus (IoU > 0.5)", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left", fontsize="small")
    below.set(xlabel="detection probability", ylabel="nuclei")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    with complete(picture) as temporary:
        figure.savefig(temporary, dpi=120, format=picture.suffix.lstrip(".") or "png")
