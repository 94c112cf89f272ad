"""What each ingredient is worth: one change at a time, the same budget, scored on validation images.

    python benchmarks/ablation.py --data FOLDER -o RUNS [--rows base fixed-sigma ...] [--seeds 0 1] [--json]

Every row trains on the twelve MultiOrgan training images for the same number of crops and is scored on the four
validation images, with its own best threshold and least area, and so is its SPN alone (connected components). A row's
report is kept in benchmarks/accuracy/ablation/ as it ends; a run that was cut off goes on. The table,
benchmarks/accuracy/ablation.md, is made of all reports that are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import budget
import numpy as np
import torch
from torch import Tensor, nn

from wsiseg import metrics, plugins, recipes
from wsiseg.benchmark import folds_of, hardware, training_images
from wsiseg.config import Config, read_config
from wsiseg.dense_crf import pairwise_energy
from wsiseg.evaluate import Choice, choose
from wsiseg.geometry import Rect
from wsiseg.learning import minutes_of
from wsiseg.losses import edge_loss
from wsiseg.models import ModelRef
from wsiseg.outputs import write_text
from wsiseg.predict import Model, load, save_model
from wsiseg.pseudo_labels import adaptive_sigma
from wsiseg.recipes import partial_points, pseudo_edge_net, spn_ien
from wsiseg.recipes._spn_ien_losses import proposal_loss
from wsiseg.samples import Sample, read_samples
from wsiseg.stages import Stage, TrainingImage
from wsiseg.train import train
from wsiseg.version import commit

Rng = np.random.Generator
REPORTS = Path(__file__).parent / "accuracy" / "ablation"
CROPS = 8_000
"""Of each network: a row is 20 minutes of a core."""

ROWS: Mapping[str, str] = {
    "base": "adaptive sigma, `output`, from random weights, colour augmented",
    "fixed-sigma": "k-means with one sigma for all images, their mean (the paper's Baseline)",
    "input": "IEN sees sine and cosine of its position, background instance",
    "patch": "IEN sees its position in the patch, background instance, overlapping patches: as published",
    "self-supervised": "a fifth of the crops go to the triplet and ranking tasks of Xie et al. (2020)",
    "second-round": "half of SPN's crops, then labels refreshed by it for the other half",
    "plain-colour": "crops keep the colours and sharpness they have",
    "margin": "k-means background within 3 px of a nucleus stays unlabelled",
    "haematoxylin": "k-means sees the density of haematoxylin beside RGB",
    "local": "k-means of each Voronoi cell (Chamanzar and Nie 2020) instead of the image's",
    "traced": "nuclei traced from their points along the edges of the image, for both networks",
    "crf": "the last quarter of SPN's crops with the dense-CRF loss (Qu et al. 2020), at the rate of its refinement",
    "edge-network": "SPN's edges held against a small edge network's with attention (Yoo et al. 2019)",
    "settled": "the base's networks, and outlines settle on the image's edges",
    "supervised": "full masks: what points leave to be won",
}
OPTIONS: Mapping[str, Mapping[str, float]] = {
    "margin": {"margin": 3.0},
    "haematoxylin": {"haematoxylin": 0.5},
    "local": {"local": 1},
    "traced": {"trace": 12.0},
}
"""Rows that change how pseudo-labels are made, and how."""
COPIED: Mapping[str, Sequence[str]] = {"input": ["spn"], "patch": ["spn"], "settled": ["spn", "ien"]}
"""Networks of the base row that a row takes, where they are there, instead of training the same once more."""


def main() -> None:
    """Train and score what is asked for; write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--config", type=Path, default=Path("configs/spn-ien-small.toml"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for row in options.rows:
            run(options, row, seed)
    kept = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    text = table(kept)
    write_text(REPORTS.with_suffix(".md"), text)
    print(json.dumps({"rows": kept}) if options.json else text)


def run(options: argparse.Namespace, row: str, seed: int) -> None:
    """One row with one seed; what an earlier run finished stays."""
    report = REPORTS / f"{row}-seed{seed}.json"
    if budget.finished(report, batch=budget.BATCH):
        return
    config = changed(read_config(options.config), row)
    (fold,) = folds_of(options.data / "multiorgan", "validation")
    images = training_images(config, "multiorgan", fold, options.data)
    if row == "fixed-sigma":
        images = with_sigma(images)
    folder = options.output / f"{row}-seed{seed}"
    for name in COPIED.get(row, []):
        trained = options.output / f"base-seed{seed}" / f"{name}.pt"
        if trained.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(trained, folder / trained.name)
    recipe = plugins.load(recipes, config.recipe)
    stages = helped(recipe.stages(config.settings), row, config.settings)
    networks = train(stages, images, folder, augmentation=config.augmentation, seed=seed)
    save_model({n: networks[n] for n in recipe.networks(config.settings)}, folder / "model", config.card())
    model = load(ModelRef(config.recipe, str(folder / "model"), "cpu"))
    held_out = read_samples(options.data / "multiorgan", fold.scored, mpp=config.mpp, from_masks=True)
    best, baseline = choose(held_out, model)
    kept = {
        "row": row,
        "seed": seed,
        **scores(held_out, model, best),
        "batch": budget.BATCH,
        "threshold": best.threshold,
        "min_area": best.min_area,
        "SPN alone": asdict(baseline),
        "minutes": minutes_of(folder),
        "hardware": f"{hardware('cpu')}, {options.threads} threads",
        "commit": commit(),
    }
    write_text(report, json.dumps(kept, indent=1) + "\n")
    print(f"{row}, seed {seed}: AJI (authors) {best.aji:.4f}, SPN alone {baseline.aji:.4f}", flush=True)


def changed(config: Config, row: str) -> Config:
    """The base configuration with a row's one change."""
    short = replace(config.settings.spn, crops=CROPS, batch=budget.BATCH)
    once = {"refresh": None, "foreground": 0.25}
    as_found = {"least_score": 0.0, "least_density": 0.0, "least_edge": 0.0, "settle": (0, 0)}
    settings: dict[str, Any] = {"spn": short, "ien": short, **as_found, **once}
    recipe, augmentation = config.recipe, config.augmentation
    data = tuple(d for d in config.data if d.folder == "multiorgan")
    if row in ("input", "patch"):
        settings |= {"coordinates": row, "bandwidth": 1.5}
    if row == "self-supervised":
        four_fifths = replace(short, crops=CROPS * 4 // 5)
        encoder = replace(config.settings.encoder, crops=CROPS * 2 // 5)
        settings |= {"init": row, "encoder": encoder, "spn": four_fifths, "ien": four_fifths}
    if row == "second-round":
        half = replace(short, crops=CROPS // 2)
        settings |= {"refresh": 0.3, "spn": half, "spn_again": half, "foreground": 0.45}
    if row == "plain-colour":
        augmentation = budget.PLAIN
    data = tuple(d.model_copy(update={"options": {**d.options, **OPTIONS.get(row, {})}}) for d in data)
    if row == "settled":
        settings["settle"] = (1, 3)
    if row == "supervised":
        recipe = "supervised"
        settings |= {"foreground": 0.5}
    update = {
        "name": f"ablation-{row}",
        "recipe": recipe,
        "settings": replace(config.settings, **settings),
        "augmentation": augmentation,
        "data": data,
    }
    return config.model_copy(update=update)


def helped(stages: Sequence[Stage], row: str, settings: spn_ien.Settings) -> tuple[Stage, ...]:
    """The stages, SPN's with the loss of another recipe where a row says so."""
    if row not in ("crf", "edge-network"):
        return tuple(stages)
    spn, ien = stages
    if row == "edge-network":
        beside = pseudo_edge_net.Settings(depth=settings.depth, width=settings.width)
        loss = partial(edge_guided, settings, beside.edge_weight)
        return replace(spn, network=partial(guided, spn, beside), loss=loss, part="segmentation"), ien
    given = partial_points.Settings()
    quarter = replace(spn.schedule, crops=spn.schedule.crops // 4)
    before = replace(
        spn,
        name="spn_before",
        schedule=replace(quarter, crops=3 * quarter.crops),
        nuclei=None,
    )
    refinement = replace(quarter, learning_rate=given.refinement.learning_rate)
    refined = replace(spn, init="spn_before", schedule=refinement, loss=partial(crf_guided, settings, given))
    return before, refined, ien


def guided(spn: Stage, beside: pseudo_edge_net.Settings) -> nn.Module:
    """SPN as f, and the recipe's g and h."""
    all_three = pseudo_edge_net.together(beside)
    return pseudo_edge_net.PseudoEdgeNet(spn.network(), all_three.edges, all_three.attention)


def edge_guided(
    settings: spn_ien.Settings, weight: float, network: nn.Module, images: Tensor, targets: Tensor, _: Rng
) -> Tensor:
    """SPN's loss, and the difference between its edges and the edge network's (Yoo et al. 2019, Eq. 2)."""
    logits, edges = network(images)
    guide = edge_loss(logits.float().sigmoid(), edges.float())
    return proposal_loss(settings, logits, targets) + weight * guide


def crf_guided(
    settings: spn_ien.Settings,
    given: partial_points.Settings,
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    _: Rng,
) -> Tensor:
    """SPN's loss, and the pairwise term (Qu et al. 2020, Eq. 10)."""
    logits = network(images)[:, 0].float()
    energy = pairwise_energy(logits.sigmoid(), images, sigma_pq=given.sigma_pq, sigma_rgb=given.sigma_rgb)
    return proposal_loss(settings, logits, targets) + given.beta * energy


def with_sigma(images: list[TrainingImage]) -> list[TrainingImage]:
    """The images with the mean of their adaptive sigmas as everyone's."""
    patch = int(images[0].options["patch"])
    sigma = float(np.mean([adaptive_sigma(i.sample.image, i.sample.points, patch=patch) for i in images]))
    return [replace(i, options={**i.options, "sigma": sigma}) for i in images]


def scores(samples: list[Sample], model: Model, best: Choice) -> dict[str, float]:
    """Means over the images at a row's own best numbers, and the seconds of a processor that grouping an image took."""
    rows, seconds = [], 0.0
    for sample in samples:
        maps, inside = model.predict_whole(sample.image)
        frame = Rect(0, 0, *maps.prob.shape[1:])
        began = time.process_time()
        labels, _ = model.group(maps, frame, threshold=best.threshold, min_area=best.min_area)
        seconds += time.process_time() - began
        found, truth = labels[inside], sample.labels
        assert truth is not None
        rows.append(
            {
                "AJI (authors)": metrics.aji_authors(truth, found),
                "AJI": metrics.aji(truth, found),
                "IoU": metrics.pixel_iou(truth, found),
                "PQ": metrics.panoptic_quality(truth, found),
            }
        )
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**mean, "clustering seconds": round(seconds / len(samples), 2)}


def table(kept: list[dict[str, Any]]) -> str:
    """All reports as Markdown: means over seeds, each seed's AJI beside them."""
    lines = [
        f"Validation images of MultiOrgan, {CROPS:,} crops a network in batches of {budget.BATCH}, by `python benchmarks/ablation.py --data FOLDER -o RUNS`. "
        "Means over the seeds; in brackets each seed. Every row has its own best threshold and least area.",
        "",
        "| row | AJI (authors) | AJI | IoU | PQ | SPN alone, AJI (authors) | grouping, s an image | what it is |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, told in ROWS.items():
        of_row = [k for k in kept if k["row"] == row]
        if not of_row:
            continue

        def mean(name: str, of: list[dict[str, Any]] = of_row) -> float:
            return float(np.mean([k[name] for k in of]))

        each = ", ".join(f"{k['AJI (authors)']:.3f}" for k in of_row)
        alone = np.mean([k["SPN alone"]["aji"] for k in of_row])
        lines.append(
            f"| {row} | {mean('AJI (authors)'):.4f} ({each}) | {mean('AJI'):.4f} | {mean('IoU'):.4f} | "
            f"{mean('PQ'):.4f} | {alone:.4f} | {mean('clustering seconds'):.1f} | {budget.told(told, of_row, batch=budget.BATCH)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
