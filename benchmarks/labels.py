"""How good the labels are that points become: held against the masks of validation images, no network trained.

    python benchmarks/labels.py --data FOLDER [--model he-points] [--json]

Points are the centres of the masks' bounding boxes, and clicks that lie some pixels beside them (normal, sigma 2.5 px,
inside the mask). Labels of k-means are divided by the points' Voronoi cells, those of a model are what its SPN and the
points agree on, and traced ones are those of `wsiseg.tracing`. The table is benchmarks/accuracy/labels.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsiseg import metrics
from wsiseg.config import read_config
from wsiseg.evaluate import labels_of
from wsiseg.models import ModelRef, find_model
from wsiseg.outputs import write_text
from wsiseg.predict import load
from wsiseg.pseudo_labels import NUCLEUS, instance_labels, voronoi_cells
from wsiseg.recipes._point_targets import (
    likely_nuclei,
    refreshed_targets,
    semantic_probability,
    semantic_targets,
    traced_instances,
)
from wsiseg.samples import Sample, read_samples, read_split
from wsiseg.tracing import SURE

TABLE = Path(__file__).parent / "accuracy" / "labels.md"
CONFIG = Path(__file__).parents[1] / "configs" / "spn-ien-small.toml"
RADIUS = 12.0
"""Of a typical nucleus, pixels."""
BESIDE = 2.5
"""Pixels between a click and a nucleus's middle, sigma along either axis."""
Labels = NDArray[np.int32]


def main() -> None:
    """Make and score labels, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan and tnbc")
    parser.add_argument("--model", default="he-points", help="whose SPN sees the images")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    spn = load(ModelRef("spn_ien", str(find_model(options.model)))).networks["spn"]
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for data in read_config(CONFIG).data:
        folder = options.data / data.folder
        samples = read_samples(folder, read_split(folder, "val"), mpp=0.25, from_masks=True)
        clicked = [beside(sample, np.random.default_rng(i)) for i, sample in enumerate(samples)]
        for name, make in makers(data.options, spn, options.model).items():
            each = {"centres": samples, "clicks": clicked}
            rows.setdefault(name, {})[data.folder] = {
                f"{metric}, {points}": value
                for points, of in each.items()
                for metric, value in scores(of, make).items()
            }
    text = table(rows)
    write_text(TABLE, text)
    print(json.dumps(rows) if options.json else text)


def makers(
    options: Mapping[str, float], spn: nn.Module, model: str
) -> Mapping[str, Callable[[Sample], Labels]]:
    """What makes the labels of an image, by what it is."""
    traced = {**options, "trace": RADIUS}

    def kmeans(sample: Sample) -> Labels:
        return in_cells(sample, semantic_targets(sample, options, {})[0] == NUCLEUS)

    def refreshed(sample: Sample) -> Labels:
        return in_cells(
            sample,
            refreshed_targets(0.2, sample, options, {"spn_first": spn}, settle=(1, 3), least_edge=40.0)[0]
            == NUCLEUS,
        )

    def divided(sample: Sample) -> Labels:
        return instance_labels(semantic_probability(spn, sample.image), sample.points, foreground=0.45)

    def edges(sample: Sample) -> Labels:
        return traced_instances(sample, np.full(sample.image.shape[:2], SURE), traced)

    def on_kmeans(sample: Sample) -> Labels:
        return traced_instances(sample, likely_nuclei(semantic_targets(sample, options, {})[0]), traced)

    def on_network(sample: Sample) -> Labels:
        return traced_instances(sample, semantic_probability(spn, sample.image), traced)

    return {
        "k-means, in Voronoi cells": kmeans,
        f"SPN of {model} at 0.45, in Voronoi cells": divided,
        f"SPN of {model} at 0.2, 8 views, settled, in Voronoi cells": refreshed,
        "traced, edges alone": edges,
        "traced over k-means": on_kmeans,
        f"traced over SPN of {model}": on_network,
    }


def in_cells(sample: Sample, inside: NDArray[np.bool_]) -> Labels:
    """Nuclei divided by the Voronoi cells of the points."""
    height, width = inside.shape
    return np.where(inside, voronoi_cells(sample.points, (height, width)), 0).astype(np.int32)


def beside(sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample clicked less carefully; a click that would leave its nucleus stays in the middle."""
    truth = labels_of(sample)
    clicks = sample.points + rng.normal(0, BESIDE, sample.points.shape)
    clicks = clicks.clip(0, np.array(truth.shape) - 1e-3)
    own, there = (truth[tuple(np.floor(at).astype(int).T)] for at in (sample.points, clicks))
    return replace(sample, points=np.where(((own == there) & (own > 0))[:, None], clicks, sample.points))


def scores(samples: list[Sample], make: Callable[[Sample], Labels]) -> dict[str, float]:
    """Means over the images."""
    each = []
    for sample in samples:
        truth, made = labels_of(sample), make(sample)
        found = metrics.match(truth, made)
        each.append((metrics.aji(truth, made), found.tp / (found.tp + found.fn)))
    aji, right = np.mean(each, axis=0)
    return {"AJI": float(aji), "right": float(right)}


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown, a line for each way of making labels."""
    folders = list(next(iter(rows.values())))
    columns = [(f, m, p) for f in folders for p in ("centres", "clicks") for m in ("AJI", "right")]
    lines = [
        "Labels made of the points of validation images, against their masks, by `python benchmarks/labels.py --data FOLDER`. AJI, and the share of true nuclei whose "
        f"label has an IoU above 0.5; of the centres of their bounding boxes, and of clicks about {BESIDE} px (sigma, along either axis) beside them.",
        "",
        "| labels | " + " | ".join(f"{f}: {m}, {p}" for f, m, p in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, of in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{of[f][f'{m}, {p}']:.3f}" for f, m, p in columns) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
