"""Where the AJI goes: a model's parts on validation images, one after another replaced by what the masks say.

    python benchmarks/ceilings.py --data FOLDER [--models he-points MODEL ...] [--json]

With the true foreground, what its embeddings make of it is left to lose; with the true nuclei inside its own foreground,
what the foreground is; with labels traced from the true points, what any network can learn from such labels. The table is
benchmarks/accuracy/ceilings.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from labels import CONFIG, RADIUS, Labels
from skimage.segmentation import expand_labels

from wsiseg import metrics
from wsiseg.config import read_config
from wsiseg.evaluate import labels_of
from wsiseg.geometry import Rect
from wsiseg.models import ModelRef, find_model
from wsiseg.outputs import write_text
from wsiseg.predict import Model, load, relabelled
from wsiseg.recipes._point_targets import semantic_probability, traced_instances
from wsiseg.samples import Sample, at_mpp, read_samples, read_split

TABLE = Path(__file__).parent / "accuracy" / "ceilings.md"
NEAR = 15.0
"""Pixels from a true nucleus within which the foreground is given to it."""


def main() -> None:
    """Score every model's parts on every data set, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan and tnbc")
    parser.add_argument(
        "--models", nargs="+", default=["he-points"], help="names, or folders of trained ones"
    )
    parser.add_argument("--split", default="val", choices=("train", "val"))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.models:
        model = load(ModelRef("spn_ien", str(find_model(name))))
        for data in read_config(CONFIG).data:
            folder = options.data / data.folder
            samples = read_samples(
                folder, read_split(folder, options.split), mpp=model.card.mpp, from_masks=True
            )
            each = [ceilings(model, at_mpp(sample, model.card.mpp), data.options) for sample in samples]
            mean = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
            rows.append({"model": model.card.name, "data": f"{data.folder}, {options.split}", **mean})
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    text = table(rows)
    if options.split == "val":
        write_text(TABLE, text)
    print(text)


def ceilings(model: Model, sample: Sample, options: Mapping[str, float]) -> dict[str, float]:
    """AJI (authors) of one image with each part replaced, and how far foregrounds overlap with the true one."""
    truth = labels_of(sample)
    maps, inside = model.predict_whole(sample.image)
    frame = Rect(0, 0, *maps.prob.shape[1:])
    foreground = maps.prob[0][inside] >= model.settings.threshold
    found = relabelled(model.group(maps, frame)[0][inside])

    sure = np.zeros_like(maps.prob)
    sure[0][inside] = truth > 0
    # What lies in the true foreground is a nucleus, however unsure SPN was, and has its true outline already.
    as_given = replace(model.settings, settle=(0, 0), least_edge=0.0, least_density=0.0)
    divided = replace(model, settings=as_given).group(replace(maps, prob=sure), frame)[0][inside]

    owned = np.where(foreground, expand_labels(truth, NEAR), 0)
    seen = semantic_probability(model.networks["spn"], sample.image)
    traced = traced_instances(sample, seen, {**options, "trace": RADIUS})
    return {
        "as it segments": metrics.aji_authors(truth, found),
        "true foreground": metrics.aji_authors(truth, relabelled(divided)),
        "true nuclei in its foreground": metrics.aji_authors(truth, relabelled(owned)),
        "without what meets no nucleus": metrics.aji_authors(truth, met(truth, found)),
        "traced from true points": metrics.aji_authors(truth, traced),
        "its IoU": metrics.pixel_iou(truth, found),
        "IoU of traced": metrics.pixel_iou(truth, traced),
        "its IoU with traced": metrics.pixel_iou(traced, found),
    }


def met(truth: Labels, found: Labels) -> Labels:
    """What was found, without the nuclei that share no pixel with a true one."""
    return relabelled(np.where(np.isin(found, np.unique(found[truth > 0])), found, 0))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line for each model and data set."""
    columns = [key for key in rows[0] if key not in ("model", "data")]
    lines = [
        "A model's parts replaced by what the masks say, by `python benchmarks/ceilings.py --data FOLDER --models ...`: AJI (authors), its mean over the images, "
        "and the IoU of foregrounds.",
        "",
        "| model | images | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        values = " | ".join(f"{row[key]:.3f}" for key in columns)
        lines.append(f"| {row['model']} | {row['data']} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
