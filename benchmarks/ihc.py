"""Ki-67 immunohistochemistry from clicks: nuclei found, positive or negative, fold by fold, and the index of each image.

    python benchmarks/ihc.py --data FOLDER -o RUNS [--crops 8000] [--folds 0 1 2 3 4] [--threads 2] [--json]

Five folds of the 29 images, by name; `configs/ihc-points.toml` is trained on four of them and scored on the fifth, only
inside the regions where every nucleus is clicked. A detection within 4 um of a clicked nucleus is its match. A fold's
report is kept in benchmarks/accuracy/ihc/ as it ends, and a run that was cut off goes on; the table is
benchmarks/accuracy/ihc.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg.benchmark import hardware
from wsiseg.config import Config, read_config
from wsiseg.detection import concordance, match_points
from wsiseg.learning import minutes_of
from wsiseg.models import ModelRef
from wsiseg.outputs import write_text
from wsiseg.predict import Model, load, save_model
from wsiseg.recipes import multi_task
from wsiseg.samples import Sample, read_samples
from wsiseg.stages import TrainingImage
from wsiseg.train import train
from wsiseg.version import commit

REPORTS = Path(__file__).parent / "accuracy" / "ihc"
CONFIG = Path(__file__).parents[1] / "configs" / "ihc-points.toml"
FOLDS = 5
RADIUS_UM = 4.0
"""Between a click and its detection at most: about the radius of a tumour nucleus."""
WIDER_UM = 6.0
"""The same, for clicks that were made in haste: in some images they lie anywhere in a nucleus of 15 um."""


def main() -> None:
    """Train and score the folds that are asked for; write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ihc_ki67_points")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--crops", type=int, default=8_000)
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for fold in options.folds:
        run(options, fold)
    kept = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    write_text(REPORTS.with_suffix(".md"), table(kept))
    print(json.dumps({"folds": kept}) if options.json else table(kept))


def run(options: argparse.Namespace, fold: int) -> None:
    """Train without a fold and score it; what an earlier run finished stays."""
    report = REPORTS / f"fold{fold}.json"
    if report.exists():
        return
    config = read_config(CONFIG)
    settings = replace(config.settings, unet=replace(config.settings.unet, crops=options.crops))
    config = config.model_copy(update={"name": f"ihc-fold{fold}", "settings": settings})
    samples = clicked(config, options.data)
    taught = [TrainingImage(s, config.data[0].options) for i, s in enumerate(samples) if i % FOLDS != fold]
    folder = options.output / f"fold{fold}"
    networks = train(
        multi_task.stages(config.settings), taught, folder, augmentation=config.augmentation, seed=0
    )
    save_model({"unet": networks["unet"]}, folder / "model", config.card())
    model = load(ModelRef(config.recipe, str(folder / "model"), "cpu"))
    images = {s.name: scored(model, s, config) for i, s in enumerate(samples) if i % FOLDS == fold}
    kept = {
        "fold": fold,
        "images": images,
        "crops": options.crops,
        "minutes": minutes_of(folder),
        "hardware": f"{hardware('cpu')}, {options.threads} threads",
        "commit": commit(),
    }
    write_text(report, json.dumps(kept, indent=1) + "\n")
    print(f"fold {fold} is scored", flush=True)


def clicked(config: Config, root: Path) -> list[Sample]:
    """All images with their clicks."""
    (data,) = config.data
    return read_samples(root / data.folder, mpp=config.mpp, classes=config.classes, clicks=data.clicks)


def scored(model: Model, sample: Sample, config: Config) -> dict[str, Any]:
    """Counts of an image, inside its region: clicked, found, matched, and matched with the right class."""
    maps, inside = model.predict_whole(sample.image)
    points, classes = multi_task.detections(maps, model.settings)
    points = points - (inside[0].start, inside[1].start)
    within = ((points >= 0) & (points < sample.image.shape[:2])).all(1)
    points, classes = points[within], classes[within]
    truth = np.array([config.classes.index(name) for name in sample.classes])
    where = sample.points
    if sample.roi is not None:
        here, there = in_region(sample.roi, points), in_region(sample.roi, where)
        points, classes, where, truth = points[here], classes[here], where[there], truth[there]
    matches = match_points(where, points, radius=RADIUS_UM / config.mpp)
    wider = match_points(where, points, radius=WIDER_UM / config.mpp)
    right = classes[matches.found] == truth[matches.truth]
    return {
        "distances": [round(d * config.mpp, 3) for d in matches.distance.tolist()],
        "matched wider": len(wider.distance),
        "found": len(points),
        "clicked": len(where),
        "right class": int(right.sum()),
        "found positive": int((classes == 0).sum()),
        "clicked positive": int((truth == 0).sum()),
        "positive matched": int(((truth[matches.truth] == 0) & right).sum()),
    }


def in_region(roi: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which points (N, 2) lie where all nuclei are clicked."""
    y, x = np.floor(points).astype(np.int64).T
    inside: NDArray[np.bool_] = roi[y, x]
    return inside


def table(kept: list[dict[str, Any]]) -> str:
    """The folds as Markdown, all images together last."""
    lines = [
        f"Ki-67 from clicks, {FOLDS} folds of 29 images, by `python benchmarks/ihc.py --data FOLDER -o RUNS`. "
        f"A detection within {RADIUS_UM:g} um of a click is its match; positive: found positive, matched and right.",
        "",
        "| fold | images | precision | recall | F1 | mu_d, um | right class | positive: precision | recall "
        f"| within {WIDER_UM:g} um: precision | recall "
        "| CCC of counts | CCC of the index | mean error of the index, points | minutes |",
        "|---" * 15 + "|",
    ]
    for fold in kept:
        lines.append(row(str(fold["fold"]), list(fold["images"].values()), fold["minutes"]))
    every = [image for fold in kept for image in fold["images"].values()]
    if len(kept) > 1:
        lines.append(row("all", every, sum(fold["minutes"] for fold in kept)))
    return "\n".join(lines) + "\n"


def row(name: str, images: list[dict[str, Any]], minutes: float) -> str:
    """A line of the table."""

    def total(key: str) -> int:
        return sum(int(i[key]) for i in images)

    distances = np.concatenate([np.array(i["distances"]) for i in images])
    precision, recall = len(distances) / max(1, total("found")), len(distances) / max(1, total("clicked"))
    index = {
        who: np.array([100 * i[f"{who} positive"] / max(1, i[who]) for i in images])
        for who in ("clicked", "found")
    }
    counts = [np.array([i[who] for i in images]) for who in ("clicked", "found")]
    cells = [
        str(len(images)),
        f"{precision:.3f}",
        f"{recall:.3f}",
        f"{2 * len(distances) / max(1, total('found') + total('clicked')):.3f}",
        f"{distances.mean():.2f}",
        f"{total('right class') / max(1, len(distances)):.3f}",
        f"{total('positive matched') / max(1, total('found positive')):.3f}",
        f"{total('positive matched') / max(1, total('clicked positive')):.3f}",
        f"{total('matched wider') / max(1, total('found')):.3f}",
        f"{total('matched wider') / max(1, total('clicked')):.3f}",
        f"{concordance(*counts):.3f}",
        f"{concordance(index['clicked'], index['found']):.3f}",
        f"{np.abs(index['clicked'] - index['found']).mean():.1f}",
        f"{minutes:.0f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
