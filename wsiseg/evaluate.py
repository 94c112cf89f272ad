"""A data set of labelled images through a model: a table of metrics, and thresholds chosen on validation images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsiseg import metrics
from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.predict import Model, relabelled
from wsiseg.samples import Sample, at_mpp, nearest

METRICS: Mapping[str, Callable[[NDArray[np.integer], NDArray[np.integer]], float]] = {
    "IoU": metrics.pixel_iou,
    "F1": metrics.pixel_f1,
    "Dice": metrics.object_dice,
    "AJI": metrics.aji,
    "AJI (authors)": metrics.aji_authors,
    "PQ": metrics.panoptic_quality,
}
"""Columns of the table. Pixel IoU and F1, object Dice, both Aggregated Jaccard Indices, panoptic quality."""

THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
MIN_AREAS = (20, 40, 60, 80)

Segment = Callable[[Sample], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Table:
    """Metrics of a data set.

    rows : image name -> metric name -> value    plus "nuclei" and "true nuclei"
    """

    rows: Mapping[str, Mapping[str, float]]

    def mean(self) -> dict[str, float]:
        """Each metric averaged over the images, never pooled."""
        names = next(iter(self.rows.values()))
        return {name: float(np.mean([row[name] for row in self.rows.values()])) for name in names}

    def markdown(self) -> str:
        """The table as Markdown, the mean last."""
        named = {**self.rows, "mean": self.mean()}
        heading = list(next(iter(named.values())))
        lines = ["| image | " + " | ".join(heading) + " |", "|---" * (len(heading) + 1) + "|"]
        for image, row in named.items():
            cells = (f"{row[n]:.0f}" if "nuclei" in n else f"{row[n]:.4f}" for n in heading)
            lines.append(f"| {image} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Choice:
    """Numbers chosen on validation images, and the mean AJI (authors) they got there."""

    threshold: float
    min_area: int
    aji: float


def evaluate(samples: Sequence[Sample], segment: Segment) -> Table:
    """Metrics of `segment` over samples with labels.

    Raises
    ------
    DataError
        If there is no sample, or one has no labels.
    """
    if not samples:
        raise DataError("no images to evaluate on")
    rows = {}
    for sample in samples:
        truth = labels_of(sample)
        found = segment(sample)
        row = {name: metric(truth, found) for name, metric in METRICS.items()}
        counts = {
            "nuclei": float(found.max(initial=0)),
            "true nuclei": float(len(np.unique(truth[truth > 0]))),
        }
        rows[sample.name] = {**row, **counts}
    return Table(rows)


def labels_of(sample: Sample) -> NDArray[np.int32]:
    """The true instances of a sample.

    Raises
    ------
    DataError
        If it has none: points cannot be evaluated against.
    """
    if sample.labels is None:
        raise DataError(f"{sample.name}: has no labels; evaluation needs masks of all nuclei")
    return sample.labels


def grouped(
    model: Model, threshold: float | None = None, min_area: int | None = None, *, flips: int = 1
) -> Segment:
    """Whole images by the recipe's own grouping."""
    return seen_at(
        model, lambda sample: model.segment(sample.image, threshold=threshold, min_area=min_area, flips=flips)
    )


def seen_at(model: Model, segment: Segment) -> Segment:
    """Images brought to the model's pixel size, and its nuclei back to theirs, where they are scored."""

    def segmented(sample: Sample) -> NDArray[np.int32]:
        found = segment(at_mpp(sample, model.card.mpp))
        height, width = sample.image.shape[:2]
        return found if found.shape == (height, width) else relabelled(nearest(found, (height, width)))

    return segmented


def components(model: Model, threshold: float, min_area: int, *, flips: int = 1) -> Segment:
    """Whole images by connected components of the foreground: the baseline."""

    def segment(sample: Sample) -> NDArray[np.int32]:
        maps, inside = model.predict_whole(sample.image, flips=flips)
        return relabelled(model.components(maps, threshold=threshold, min_area=min_area)[inside])

    return seen_at(model, segment)


def choose(samples: Sequence[Sample], model: Model, *, flips: int = 1) -> tuple[Choice, Choice]:
    """Threshold and least area of highest mean AJI (authors): for the grouping, and for components alone.

    `samples` are validation images, scored at the model's pixel size. The networks see each once.
    """
    samples = [at_mpp(sample, model.card.mpp) for sample in samples]
    seen = [model.predict_whole(sample.image, flips=flips) for sample in samples]
    truths = [labels_of(sample) for sample in samples]

    def group(maps: Maps, threshold: float, min_area: int) -> NDArray[np.int32]:
        return model.group(maps, Rect(0, 0, *maps.prob.shape[1:]), threshold=threshold, min_area=min_area)[0]

    def baseline(maps: Maps, threshold: float, min_area: int) -> NDArray[np.int32]:
        return model.components(maps, threshold=threshold, min_area=min_area)

    def best(segment: Callable[[Maps, float, int], NDArray[np.int32]]) -> Choice:
        tried = []
        for threshold, min_area in itertools.product(THRESHOLDS, MIN_AREAS):
            scores = [
                metrics.aji_authors(truth, segment(maps, threshold, min_area)[inside])
                for (maps, inside), truth in zip(seen, truths, strict=True)
            ]
            tried.append(Choice(threshold, min_area, float(np.mean(scores))))
        return max(tried, key=lambda choice: choice.aji)

    return best(group), best(baseline)


@dataclass(frozen=True, slots=True)
class OnCorrected:
    """How well a model does on corrected nuclei.

    nuclei : int             in all samples
    f1 : float               of points that lie in nuclei, over all samples
    aji : float or None      mean AJI over the samples; None where not every nucleus has an outline
    """

    nuclei: int
    f1: float
    aji: float | None


def on_corrected(samples: Sequence[Sample], model: Model) -> OnCorrected:
    """A model on samples of corrected nuclei (`wsiseg.corrections`), inside their regions alone."""
    matched = points = nuclei = 0
    ajis: list[float] = []
    complete = True
    for sample in samples:
        assert sample.roi is not None
        assert sample.outlines is not None
        at = np.floor(sample.points).astype(np.int64)
        own = np.flatnonzero(sample.roi[tuple(at.T)])
        found = within(model.segment(sample.image), sample.roi)
        hit = found[tuple(at[own].T)]
        matched += len(np.unique(hit[hit > 0]))
        points, nuclei = points + len(own), nuclei + len(np.unique(found[found > 0]))
        complete &= bool(np.isin(own + 1, sample.outlines).all())
        truth = np.where(np.isin(sample.outlines, own + 1), sample.outlines, 0)
        ajis.append(metrics.aji(relabelled(truth), relabelled(found)))
    f1 = 2 * matched / max(1, points + nuclei)
    return OnCorrected(points, f1, float(np.mean(ajis)) if complete and ajis else None)


ACCEPTED = 0.8
"""IoU of a model's nucleus and a corrected one from which the person left it as it was: outlines are simplified on their
way to a file, and where samples begin elsewhere than tiles did, nine of ten come back with this much."""


def corrections_made(samples: Sequence[Sample], model: Model) -> int:
    """How many nuclei a person changed of what a model finds inside the regions of samples.

    Redrawn ones and added ones are those without a nucleus of the model that is the same (`ACCEPTED`), added points
    those that lie in none; deleted ones are the model's that neither a corrected outline nor a point lies in.
    """
    changed = 0
    for sample in samples:
        assert sample.roi is not None
        assert sample.outlines is not None
        found = within(model.segment(sample.image), sample.roi)
        at = np.floor(sample.points).astype(np.int64)
        own = np.flatnonzero(sample.roi[tuple(at.T)]) + 1
        outlined = np.intersect1d(own, sample.outlines)
        truth = np.where(np.isin(sample.outlines, outlined), sample.outlines, 0)
        pairs = metrics.overlaps(truth, found)
        same = int((pairs.jaccard >= ACCEPTED).sum())
        hit = found[tuple(at[np.setdiff1d(own, outlined) - 1].T)]
        known = np.union1d(np.unique(found[truth > 0]), hit)
        deleted = np.setdiff1d(np.unique(found[found > 0]), known)
        changed += len(outlined) - same + int((hit == 0).sum()) + len(deleted)
    return changed


def within(labels: NDArray[np.int32], roi: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The labels (H, W) of which half or more of the pixels lie in a region (H, W)."""
    count = int(labels.max(initial=0)) + 1
    whole, inside = np.bincount(labels.ravel(), minlength=count), np.bincount(labels[roi], minlength=count)
    kept = 2 * inside >= whole
    kept[0] = False
    return np.where(kept[labels], labels, 0).astype(np.int32)
