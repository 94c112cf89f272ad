"""All recipes on the official MultiOrgan split under one budget, and the orderings that their papers claim.

    python benchmarks/recipes.py --data FOLDER -o RUNS [--rows spn-ien ...] [--seeds 0 1 2] [--threads 2] [--json]

Every row trains on the twelve training images: half-width ResNet-18, as many crops in all, as many a step, the same
augmentation, which leaves colours as they are.
Threshold and least area are those of highest AJI (authors) on the four validation images, and the level above which
something is a detected point that of highest F1; then the fourteen test images are scored, once. PseudoEdgeNet's rows
have the IoU of the threshold where it is highest as well, since that is what its paper compares.
A row's report is kept in benchmarks/accuracy/recipes/ as it ends, and a run that was cut off goes on: rows can be
shared out among processes. The tables, benchmarks/accuracy/recipes.md, are made of all reports that are there; what
`wsiseg recipes` says comes from the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import budget
import numpy as np
import torch
from numpy.typing import NDArray

from wsiseg import plugins, recipes
from wsiseg.benchmark import folds_of, hardware, training_images
from wsiseg.config import Config, read_config
from wsiseg.detection import match_points, pooled
from wsiseg.evaluate import Choice, choose, evaluate, grouped, labels_of
from wsiseg.learning import minutes_of
from wsiseg.metrics import pixel_iou
from wsiseg.models import ModelRef
from wsiseg.outputs import write_text
from wsiseg.predict import Model, load, save_model
from wsiseg.recipes._known import MEASURED
from wsiseg.recipes._point_targets import semantic_probability
from wsiseg.recipes._spots import spots
from wsiseg.samples import Sample, read_samples
from wsiseg.train import train
from wsiseg.version import commit

Points = NDArray[np.float64]
Find = Callable[[float], Points]
"""Level -> the points (N, 2) of an image above it, (y, x)."""
REPORTS = Path(__file__).parent / "accuracy" / "recipes"
CONFIGS = Path(__file__).parents[1] / "configs"
CROPS = 8_000
"""Of a row, all its stages together; the refinement by a dense CRF counts a crop as four, which is what it costs.

They keep their colours (MultiOrgan is normalised to one stain): so SPN + IEN learns from half as many nearly what it learned
from crops of varied colours (`accuracy/README.md`).
"""
RADIUS = 11.0
"""Pixels between a true and a detected point at most: the average radius in MultiOrgan (Qu et al. 2020)."""
BEST_IOU = "IoU at its best"
"""Pixel IoU above the threshold where it is highest on the validation images: what Yoo et al. (2019) compare."""
LEVELS = (0.02, 0.05, *(n / 20 for n in range(2, 20)))
"""Where detected points, and for `BEST_IOU` nuclei, may begin (`Own`). One level for all rows would say how sure a detector is rather than what it finds:
a tenth of the nuclei as points and all else as background teach that hardly anything is likely to be one."""
DETECTION = ("precision", "recall", "F1 of points", "mu_d", "sigma_d")


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe, or a variant of one.

    config                  name of the configuration it starts from
    crops                   of each schedule among its settings
    settings                what is changed in it besides
    told                    what the row is, in words
    same                    another row, and the stages that are the same there: they are copied, not trained again
    published               the paper's own number and protocol
    options                 of the data set, what is changed in them
    beside                  crops that it has beyond everybody's, which is for `TRIALS`
    """

    config: str
    crops: Mapping[str, int]
    told: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    same: tuple[str, tuple[str, ...]] | None = None
    published: str = ""
    options: Mapping[str, float] = field(default_factory=dict)
    beside: int = 0

    @property
    def budget(self) -> dict[str, int | str]:
        """As reports tell it."""
        return {"batch": budget.BATCH, "crops": CROPS + self.beside, "colours": "plain"}


PARTIAL = {"detector": 1_000, "segmentation": 2_800, "refinement": 300}
DETECTORS = ("detector_0", "detector_1", "detector_2", "detector")
START = {"encoder": 1_500, "unet": 6_500}

MAIN: Mapping[str, Row] = {
    "spn-ien": Row(
        "spn-ien-small",
        {"spn": 4_000, "ien": 4_000},
        "SPN + IEN, `output`, one round, from points",
        {"least_score": 0.0, "refresh": None, "foreground": 0.25},
        published="AJI 0.536, IoU 0.664 (Liu et al. 2022: official test, ImageNet ResNet-34, 1,000 epochs)",
    ),
    "pseudo-edge-net": Row(
        "pseudo-edge-net-small",
        {"segmentation": 8_000},
        "small g and attention h, from points",
        published="IoU 0.614 ± 0.04 (Yoo et al. 2019: ten folds of the 30 images, ResNet-50)",
    ),
    "partial-points": Row(
        "partial-points-small",
        PARTIAL,
        "a tenth of the points, background propagation, both labels, dense CRF",
        published="AJI 0.503, F1 of points 0.828 (Qu et al. 2020: official test, ImageNet ResNet-34)",
    ),
    "multi-task": Row(
        "multi-task-small",
        {"unet": 8_000},
        "one loss a step, from points",
        published="AJI 0.599, precision 0.941, recall 0.925 (Chamanzar and Nie 2020: their own IHC images)",
    ),
    "three-class": Row(
        "three-class-small",
        START,
        "self-supervised start, masks of all nuclei",
        {"share": 1.0},
        published="AJI 0.706 (Xie et al. 2020: MoNuSeg's own test images, ResNet-101)",
    ),
    "supervised": Row(
        "supervised-small",
        {"spn": 4_000, "ien": 4_000},
        "the networks of SPN + IEN, masks of all nuclei: the bound",
        {"least_score": 0.0},
        published="AJI 0.549 (Liu et al. 2022: official test)",
    ),
}
VARIANTS: Mapping[str, Row] = {
    **{
        f"{name}-unsettled": replace(
            MAIN[name],
            told="outlines where T_0 has them, as published",
            settings={**MAIN[name].settings, "settle": (0, 0), "least_edge": 0.0, "least_density": 0.0},
            same=(name, ("spn", "ien")),
            published="",
        )
        for name in ("spn-ien", "supervised")
    },
    "spn-ien-traced": replace(
        MAIN["spn-ien"],
        told="nuclei traced from their points along the edges of the image",
        options={"trace": 12},
        published="",
    ),
    "pen-none": Row("pseudo-edge-net-small", {"segmentation": 8_000}, "f alone", {"edges": "none"}),
    "pen-large": Row("pseudo-edge-net-small", {"segmentation": 8_000}, "g like f", {"edges": "large"}),
    "pen-small": Row("pseudo-edge-net-small", {"segmentation": 8_000}, "small g", {"edges": "small"}),
    "points-plain": Row(
        "partial-points-small",
        {**PARTIAL, "detector": 4_000},
        "plain Gaussian masks, one round",
        {"mask": "plain", "rounds": 0, "refined": False},
    ),
    "points-extended": Row(
        "partial-points-small",
        {**PARTIAL, "detector": 4_000},
        "extended Gaussian masks, one round",
        {"rounds": 0, "refined": False},
    ),
    "points-cluster": Row(
        "partial-points-small",
        PARTIAL,
        "cluster labels alone, no CRF",
        {"alpha": 0.0, "refined": False},
        ("partial-points", DETECTORS),
    ),
    "points-voronoi": Row(
        "partial-points-small",
        PARTIAL,
        "Voronoi labels alone, no CRF",
        {"alpha": 1.0, "refined": False},
        ("partial-points", DETECTORS),
    ),
    "points-both": Row(
        "partial-points-small",
        PARTIAL,
        "both labels; as many more crops as the CRF has, without it",
        {"beta": 0.0},
        ("partial-points", (*DETECTORS, "segmentation_0")),
    ),
    "multi-task-summed": Row(
        "multi-task-small", {"unet": 8_000}, "all losses in each step", {"in_turn": False}
    ),
    "three-class-likelier": Row(
        "three-class-small",
        START,
        "the likelier of inside and boundary, as published",
        {"share": 1.0, "boundary_weight": 1.0},
        ("three-class", ("encoder", "unet")),
    ),
    "three-class-scratch": Row(
        "three-class-small", {"unet": 8_000}, "no self-supervised start", {"share": 1.0, "init": "random"}
    ),
    **{
        f"three-class-{share * 100:.0f}{end}": Row(
            "three-class-small", crops, f"masks on {share:.0%}{what}", {"share": share, **changes}
        )
        for share in (0.3, 0.5, 0.7)
        for end, what, crops, changes in (
            ("", "", START, {}),
            ("-scratch", ", no start", {"unet": 8_000}, {"init": "random"}),
        )
    },
    **{
        f"partial-points-{share * 100:.0f}": replace(
            MAIN["partial-points"],
            told=f"{share:.0%} of the points",
            settings={"share": share},
            published="",
        )
        for share in (0.05, 0.25, 0.5)
    },
    "three-class-tenth": Row("three-class-small", START, "masks on a tenth", {"share": 0.1}),
    "three-class-tenth-scratch": Row(
        "three-class-small", {"unet": 8_000}, "masks on a tenth, no start", {"share": 0.1, "init": "random"}
    ),
}
TRIALS: Mapping[str, Row] = {
    "three-class-gift": Row(
        "three-class-small",
        {**START, "unet": 8_000},
        "the start beside the 8,000 crops, all masks",
        {"share": 1.0},
        ("three-class", ("encoder",)),
        beside=1_500,
    ),
    "three-class-tenth-gift": Row(
        "three-class-small",
        {**START, "unet": 8_000},
        "the start beside the 8,000 crops, a tenth",
        {"share": 0.1},
        ("three-class-tenth", ("encoder",)),
        beside=1_500,
    ),
    "three-class-tenth-longer": Row(
        "three-class-small",
        {"encoder": 6_000, "unet": 8_000},
        "four times as long a start beside them, a tenth",
        {"share": 0.1},
        beside=6_000,
    ),
    "three-class-tenth-gift-longer": Row(
        "three-class-small",
        {**START, "unet": 24_000},
        "the start beside three times as many crops, a tenth",
        {"share": 0.1},
        ("three-class-tenth", ("encoder",)),
        beside=17_500,
    ),
    "three-class-tenth-scratch-longer": Row(
        "three-class-small",
        {"unet": 24_000},
        "no start, three times as many crops, a tenth",
        {"share": 0.1, "init": "random"},
        beside=16_000,
    ),
    "multi-task-longer": Row(
        "multi-task-small", {"unet": 24_000}, "one loss a step, three times as many crops", beside=16_000
    ),
    "multi-task-summed-longer": Row(
        "multi-task-small",
        {"unet": 24_000},
        "all losses in each step, three times as many crops",
        {"in_turn": False},
        beside=16_000,
    ),
}
"""Beyond the budget, to find out why a claim does not hold."""
ROWS = {**MAIN, **VARIANTS, **TRIALS}

ORDERINGS: Sequence[tuple[str, str, str, str]] = (
    ("pseudo-edge-net", "pen-small", BEST_IOU, "attention > small g"),
    ("pen-small", "pen-none", BEST_IOU, "small g > none"),
    ("pen-small", "pen-large", BEST_IOU, "small g > large g"),
    ("partial-points", "points-extended", "F1 of points", "background propagation > extended Gaussian"),
    ("points-extended", "points-plain", "F1 of points", "extended > plain Gaussian"),
    ("points-both", "points-cluster", "AJI (authors)", "both labels > cluster labels"),
    ("points-both", "points-voronoi", "AJI (authors)", "both labels > Voronoi labels"),
    ("partial-points", "points-both", "AJI (authors)", "CRF >= none"),
    ("multi-task", "multi-task-summed", "AJI (authors)", "one loss a step > their sum"),
    ("three-class", "three-class-scratch", "AJI (authors)", "self-supervised start > none, all labels"),
    (
        "three-class-tenth",
        "three-class-tenth-scratch",
        "AJI (authors)",
        "self-supervised start > none, a tenth",
    ),
)
"""What papers say: the first row is better than the second in this metric."""
REASONS: Sequence[tuple[str, str, str, str]] = (
    (
        "three-class-gift",
        "three-class-scratch",
        "AJI (authors)",
        "self-supervised start as a gift > none, all labels",
    ),
    (
        "three-class-tenth-gift",
        "three-class-tenth-scratch",
        "AJI (authors)",
        "self-supervised start as a gift > none, a tenth",
    ),
    (
        "three-class-tenth-longer",
        "three-class-tenth-scratch",
        "AJI (authors)",
        "four times as long a start as a gift > none, a tenth",
    ),
    (
        "three-class-tenth-gift-longer",
        "three-class-tenth-scratch-longer",
        "AJI (authors)",
        "self-supervised start as a gift > none, a tenth, three times as many crops",
    ),
    (
        "multi-task-longer",
        "multi-task-summed-longer",
        "AJI (authors)",
        "one loss a step > their sum, three times as many crops",
    ),
)
"""The same where what may have stood against a claim is taken away."""


def main() -> None:
    """Train and score what is asked for; write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for name in options.rows:
            run(options, name, seed)
    kept = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    write_text(REPORTS.with_suffix(".md"), tables(kept))
    write_text(MEASURED, measured(kept))
    print(json.dumps({"rows": kept}) if options.json else tables(kept))


def run(options: argparse.Namespace, name: str, seed: int) -> None:
    """One row with one seed; what an earlier run finished stays."""
    report, row = REPORTS / f"{name}-seed{seed}.json", ROWS[name]
    if budget.finished(report, **row.budget):
        return
    config = changed(row, name)
    folder = options.output / f"{name}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if row.same is not None:
        for stage in row.same[1]:
            shutil.copy(options.output / f"{row.same[0]}-seed{seed}" / f"{stage}.pt", folder / f"{stage}.pt")
    (validation,), (test,) = (
        folds_of(options.data / "multiorgan", protocol) for protocol in ("validation", "official")
    )
    recipe = plugins.load(recipes, config.recipe)
    networks = train(
        recipe.stages(config.settings),
        training_images(config, "multiorgan", validation, options.data),
        folder,
        augmentation=config.augmentation,
        seed=seed,
    )
    save_model({n: networks[n] for n in recipe.networks(config.settings)}, folder / "model", config.card())
    model = load(ModelRef(config.recipe, str(folder / "model"), "cpu"))
    held_out, last = (
        read_samples(options.data / "multiorgan", fold.scored, mpp=config.mpp, from_masks=True)
        for fold in (validation, test)
    )
    best, _ = choose(held_out, model)
    kept: dict[str, Any] = {
        "row": name,
        "seed": seed,
        "test": scores(last, model, best),
        "validation": scores(held_out, model, best),
        "chosen": asdict(best),
        **row.budget,
        "minutes": minutes_of(folder),
        "hardware": f"{hardware('cpu')}, {options.threads} threads",
        "commit": commit(),
    }
    if config.recipe in OWN:
        own = OWN[config.recipe]
        of_test, of_held_out = (
            [own.see(model, recipe, sample.image) for sample in samples] for samples in (last, held_out)
        )
        level = max(LEVELS, key=lambda one: own.score(held_out, of_held_out, one)[own.metric])
        kept["test"].update(own.score(last, of_test, level))
        kept["validation"].update(own.score(held_out, of_held_out, level))
        kept["chosen"]["level"] = level
    write_text(report, json.dumps(kept, indent=1) + "\n")
    print(f"{name}, seed {seed}: AJI (authors) {kept['test']['AJI (authors)']:.4f}", flush=True)


def changed(row: Row, name: str) -> Config:
    """The row's configuration: its crops, its changes, and everybody's augmentation and images."""
    config = read_config(CONFIGS / f"{row.config}.toml")
    schedules = {}
    for stage, crops in row.crops.items():
        own = getattr(config.settings, stage)
        # The self-supervised start compares the crops of a batch.
        batch = own.batch if stage == "encoder" else budget.BATCH
        schedules[stage] = replace(own, crops=crops, batch=batch)
    settings = replace(config.settings, **schedules, **row.settings)
    data = tuple(
        d.model_copy(update={"options": {**d.options, **row.options}})
        for d in config.data
        if d.folder == "multiorgan"
    )
    update = {"name": name, "settings": settings, "augmentation": budget.PLAIN, "data": data}
    return config.model_copy(update=update)


def scores(samples: list[Sample], model: Model, best: Choice) -> dict[str, float]:
    """Means over the images."""
    return evaluate(samples, grouped(model, best.threshold, best.min_area)).mean()


def detection(samples: list[Sample], finds: Sequence[Find], level: float) -> dict[str, float]:
    """How well points are detected from a level on: over all images together."""
    every = pooled(
        match_points(s.points, find(level), radius=RADIUS) for s, find in zip(samples, finds, strict=True)
    )
    values = every.precision, every.recall, every.f1, every.mean_distance, every.distance_deviation
    return dict(zip(DETECTION, values, strict=True))


def spots_of(model: Model, _: ModuleType, image: NDArray[np.uint8]) -> Find:
    """What the detector of partial points finds in an image."""
    prob, settings = semantic_probability(model.networks["detector"], image), model.settings

    def find(level: float) -> Points:
        return spots(prob, threshold=level, min_area=settings.min_spot, max_area=settings.max_spot)

    return find


def peaks_of(model: Model, recipe: ModuleType, image: NDArray[np.uint8]) -> Find:
    """Peaks of the multi-task map of an image."""
    maps, inside = model.predict_whole(image)

    def find(level: float) -> Points:
        points, _ = recipe.detections(maps, model.settings, threshold=level)
        points = points - (inside[0].start, inside[1].start)
        return points[((points >= 0) & (points < image.shape[:2])).all(1)]

    return find


def foreground_of(model: Model, _: ModuleType, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) probability of a nucleus in an image (H, W, 3)."""
    maps, inside = model.predict_whole(image)
    return maps.prob[0][inside]


def overlap(
    samples: list[Sample], probabilities: Sequence[NDArray[np.float32]], level: float
) -> dict[str, float]:
    """Pixel IoU of what is at a level or above, its mean over the images."""
    pairs = zip(samples, probabilities, strict=True)
    return {
        BEST_IOU: float(np.mean([pixel_iou(labels_of(s), (p >= level).astype(np.int32)) for s, p in pairs]))
    }


@dataclass(frozen=True, slots=True)
class Own:
    """What a paper's claim is about besides nuclei, at the level where it is highest on the validation images.

    see       (model, recipe, image) -> what it is told from, level by level
    score     (samples, what was seen of each, level) -> metrics
    metric    of these, by which the level is chosen
    """

    see: Callable[[Model, ModuleType, NDArray[np.uint8]], Any]
    score: Callable[[list[Sample], Sequence[Any], float], dict[str, float]]
    metric: str


OWN: Mapping[str, Own] = {
    "partial_points": Own(spots_of, detection, "F1 of points"),
    "multi_task": Own(peaks_of, detection, "F1 of points"),
    "pseudo_edge_net": Own(foreground_of, overlap, BEST_IOU),
}


def tables(kept: list[dict[str, Any]]) -> str:
    """All reports as Markdown."""
    lines = [
        f"MultiOrgan, official split, 14 test images: {CROPS:,} crops of 224 px a row in batches of {budget.BATCH}, half-width ResNet-18, one augmentation (no change of colour), "
        "by `python benchmarks/recipes.py --data FOLDER -o RUNS`. Mean ± deviation over the seeds.",
        "",
        *table(kept, MAIN, ("AJI (authors)", "AJI", "Dice", "IoU", "F1", "PQ"), published=True),
        "",
        "Points that two of them detect above the level of highest F1 on the validation images, within 11 px of the true ones, all test images together:",
        "",
        *table(
            kept,
            {n: r for n, r in ROWS.items() if n.startswith(("partial", "points-p", "points-e", "multi"))},
            DETECTION,
        ),
        "",
        "Variants:",
        "",
        *table(kept, VARIANTS, ("AJI (authors)", "AJI", "IoU", "PQ")),
        "",
        "What the papers say, and what came out; a difference within one deviation is not decided:",
        "",
        *claims(kept, ORDERINGS),
        "",
        "Beyond the budget, to find out why a claim does not hold:",
        "",
        *table(kept, TRIALS, ("AJI (authors)", "AJI", "IoU", "PQ")),
        "",
        *claims(kept, REASONS),
    ]
    return "\n".join(lines) + "\n"


def table(
    kept: list[dict[str, Any]], rows: Mapping[str, Row], metrics: Sequence[str], *, published: bool = False
) -> list[str]:
    """Lines of one table; rows without a report are left out."""
    lines = [
        "| row | " + " | ".join(metrics) + " | seeds | minutes | what it is |" + " published |" * published,
        "|---" * (len(metrics) + 4 + published) + "|",
    ]
    for name, row in rows.items():
        of_row = [k for k in kept if k["row"] == name]
        if of_row:
            cells = [told(values(of_row, metric)) for metric in metrics]
            # What a row took from another one was trained there.
            whole = [k["minutes"] for k in of_row if k["minutes"] is not None and row.same is None]
            minutes = f"{np.mean(whole):.0f}" if whole else ""
            end = f" {row.published} |" * published
            what = budget.told(row.told, of_row, **row.budget)
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(of_row)} | {minutes} | {what} |{end}")
    return lines


def values(of_row: list[dict[str, Any]], metric: str) -> NDArray[np.float64]:
    """A metric on the test images, seed by seed."""
    return np.array([k["test"].get(metric, np.nan) for k in of_row])


def told(numbers: NDArray[np.float64]) -> str:
    """Mean ± deviation; the mean alone of one."""
    if np.isnan(numbers).any():
        return ""
    return f"{numbers.mean():.3f}" + (f" ± {numbers.std(ddof=1):.3f}" if len(numbers) > 1 else "")


def claims(kept: list[dict[str, Any]], orderings: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Lines of a table that tells which claims hold, of the reports that kept to their budgets."""
    at_budget = [k for k in kept if budget.kept_to(k, **ROWS[k["row"]].budget)]
    return [
        "| claim | metric | first | second | |",
        "|---|---|---|---|---|",
        *filter(None, (ordering(at_budget, *each) for each in orderings)),
    ]


def ordering(kept: list[dict[str, Any]], better: str, worse: str, metric: str, claim: str) -> str:
    """A line: does the claim hold? Empty while there are less than two seeds of either."""
    first, second = (values([k for k in kept if k["row"] == name], metric) for name in (better, worse))
    if min(len(first), len(second)) < 2:
        return ""
    difference = first.mean() - second.mean()
    deviation = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    verdict = (
        "not decided" if abs(difference) <= deviation else "holds" if difference > 0 else "**does not hold**"
    )
    return f"| {claim} | {metric} | {told(first)} | {told(second)} | {verdict} |"


def measured(kept: list[dict[str, Any]]) -> str:
    """What `wsiseg recipes` tells: AJI (authors) of the main rows, by recipe."""
    found = {}
    for name, row in MAIN.items():
        of_row = [k for k in kept if k["row"] == name]
        if of_row:
            aji = values(of_row, "AJI (authors)")
            recipe = read_config(CONFIGS / f"{row.config}.toml").recipe
            deviation = round(float(aji.std(ddof=1)), 4) if len(aji) > 1 else None
            found[recipe] = {"mean": round(float(aji.mean()), 4), "deviation": deviation, "seeds": len(aji)}
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    main()
