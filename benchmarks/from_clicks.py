"""How far do a few clicks go? Points of MultiOrgan training images as QuPath would export them, to a model, to AJI.

    python benchmarks/from_clicks.py --data FOLDER -o runs/clicks [--points 50 200 1000] [--from he-points he-cc nothing] [--json]

The twelve training images become one slide. For each number of points, squares of tissue in several images
are declared annotated, their nuclei are clicked at the centres of their bounding boxes, and `wsiseg train` goes
from there: from a bundled model that learned from all points of these images (he-points), from one that never saw
them (he-cc) and from nothing. The result segments the slide of the validation images, and is scored on them, and on
what nobody clicked of the images with squares: the rest of one's own slide. A run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from slide_files import write_tiff

from wsiseg import metrics
from wsiseg.evaluate import Segment, grouped, labels_of
from wsiseg.geometry import Rect
from wsiseg.learning import minutes_of
from wsiseg.models import ModelRef, describe, find_model
from wsiseg.predict import load
from wsiseg.samples import Sample, read_samples, read_split

MPP = 0.25
NOTHING = "nothing"
"""Where a run starts from random weights."""
COLUMNS = 4
REGIONS = 4
"""Annotated squares, each in another image; fewer where there are fewer points than would fill one."""


def main() -> None:
    """Make the slides, train, segment, score, print."""
    options = arguments()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    root = options.data / "multiorgan"
    training = read_samples(root, read_split(root, "train"), from_masks=True)
    held_out = read_samples(root, read_split(root, "val"), from_masks=True)
    write_slide(folder / "train.tif", training)
    write_slide(folder / "held-out.tif", held_out)
    rows = []
    for count in options.points:
        chosen = squares(training, count)
        manifest = write_clicks(folder, training, chosen, count)
        for start in options.start:
            clicked = [(training[n], box) for n, box in chosen]
            rows.append(run(options, manifest, count, start, clicked, held_out))
            if not options.json:
                print(rows[-1], flush=True)
    draw(rows, folder / "curve.png")
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print(
        "\n| points | from | AJI (authors), rest of the clicked images | AJI (authors), validation images | AJI | nuclei of their slide | minutes |"
        "\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['points']} | {row['from']} | {told(row, 'rest')} | {told(row, 'aji_authors')} | {row['aji']:.3f} | {row['nuclei']:,} | {row['minutes']:.0f} |"
        )


def told(row: dict[str, Any], what: str) -> str:
    """What a row's model has and, where it started from one, what that one had before."""
    before = row.get("before", {})
    return (f"{before[what]:.3f} -> " if what in before else "") + f"{row[what]:.3f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """AJI over the number of clicks, a line for each start, as a picture."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for start in dict.fromkeys(row["from"] for row in rows):
        mine = [row for row in rows if row["from"] == start]
        axes.plot(
            [row["points"] for row in mine],
            [row["aji_authors"] for row in mine],
            marker="o",
            label=f"from {start}",
        )
    axes.set(xscale="log", ylim=(0, 0.6), xlabel="clicked nuclei", ylabel="AJI (authors), validation images")
    axes.set_xticks([row["points"] for row in rows], [f"{row['points']:,}" for row in rows], minor=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--points", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--config", type=Path, default=Path("configs/clicks.toml"))
    parser.add_argument(
        "--from",
        dest="start",
        nargs="+",
        default=["he-points", "he-cc", NOTHING],
        help=f"models to start from, or {NOTHING!r}",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def write_slide(path: Path, samples: list[Sample]) -> None:
    """The images side by side, as a tiled TIFF with a pixel size."""
    side = samples[0].image.shape[0]
    rows = -(-len(samples) // COLUMNS)
    picture = np.full((rows * side, COLUMNS * side, 3), 255, np.uint8)
    for number, sample in enumerate(samples):
        y, x = place(number, side)
        picture[y : y + side, x : x + side] = sample.image
    write_tiff(path, picture, MPP)


def place(number: int, side: int) -> tuple[int, int]:
    """(y, x) of an image's first pixel in the slide."""
    return number // COLUMNS * side, number % COLUMNS * side


def squares(samples: list[Sample], count: int) -> list[tuple[int, Rect]]:
    """Numbers of images, and the square of each that is clicked: about `count` nuclei in all."""
    wanted = np.diff(np.linspace(0, count, min(REGIONS, count // 25) + 1).round()).astype(int)
    chosen = []
    for number, share in enumerate(wanted):
        # Every third image, so that the organs differ.
        which = number * 3 % len(samples)
        box = square_of(samples[which].points, samples[which].image.shape[0], int(share))
        chosen.append((which, box))
    return chosen


def write_clicks(folder: Path, samples: list[Sample], chosen: list[tuple[int, Rect]], count: int) -> Path:
    """GeoJSON of the points in the squares and of these, and the manifest that names it."""
    features = []
    for which, box in chosen:
        sample, (dy, dx) = samples[which], place(which, samples[0].image.shape[0])
        inside = sample.points[box.contains(sample.points)] + (dy, dx)
        moved = box.shift(dy, dx)
        corners = [(moved.x0, moved.y0), (moved.x1, moved.y0), (moved.x1, moved.y1), (moved.x0, moved.y1)]
        features.append(annotation("Polygon", [[*corners, corners[0]]]))
        features.append(annotation("MultiPoint", inside[:, ::-1].tolist()))
    path = folder / f"{count}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    manifest = folder / f"{count}.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("slide", "points"), ("train.tif", path.name)])
    return manifest


def annotation(kind: str, coordinates: object) -> dict[str, object]:
    """A GeoJSON feature, as QuPath exports annotations."""
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation"},
    }


def square_of(points: NDArray[np.float64], side: int, count: int) -> Rect:
    """The smallest square around the middle of an image that holds at least `count` of its points."""
    half = np.sort(np.abs(points - side / 2).max(1))[min(count, len(points)) - 1]
    reach = int(min(side / 2, np.floor(half) + 1))
    return Rect(side // 2 - reach, side // 2 - reach, side // 2 + reach, side // 2 + reach)


def run(
    options: argparse.Namespace,
    manifest: Path,
    count: int,
    start: str,
    clicked: list[tuple[Sample, Rect]],
    held_out: list[Sample],
) -> dict[str, Any]:
    """Train, segment and score once; what an earlier run finished is taken from its file."""
    folder = options.output / f"{count}-from-{Path(start).name}"
    report = folder / "report.json"
    if report.exists():
        return dict(json.loads(report.read_text()))
    begin = [] if start == NOTHING else ["--from", start]
    wsiseg("train", options.config, "--slides", manifest, *begin, "-o", folder)
    model = folder / "model"
    outlines = folder / "held-out.geojson"
    wsiseg("segment", options.output / "held-out.tif", "-o", outlines, "--model", model, "-q", "--overwrite")
    scores = folder / "scores.json"
    dataset = ("--dataset", "multiorgan", "--split", "val")
    wsiseg("evaluate", "--data", options.data, *dataset, "--model", model, "-o", scores)
    mean = next(iter(json.loads(scores.read_text()).values()))["mean"]
    row = {
        "points": count,
        "from": start,
        "minutes": minutes_of(folder),
        "aji_authors": mean["AJI (authors)"],
        "aji": mean["AJI"],
        "rest": rest(whole_images(model), clicked),
        "nuclei": outlines.read_text().count('"detection"'),
    }
    if start != NOTHING:
        row["before"] = before(find_model(start), clicked, held_out)
    report.write_text(json.dumps(row))
    return row


def before(folder: Path, clicked: list[tuple[Sample, Rect]], held_out: list[Sample]) -> dict[str, float]:
    """What the model that a run starts from has, with its own thresholds."""
    segment = whole_images(folder)
    scores = [metrics.aji_authors(labels_of(sample), segment(sample)) for sample in held_out]
    return {"rest": rest(segment, clicked), "aji_authors": float(np.mean(scores))}


def whole_images(folder: Path) -> Segment:
    """What a model makes of an image, with its own thresholds."""
    return grouped(load(ModelRef(describe(folder).recipe, str(folder), "cpu")))


def rest(segment: Segment, clicked: list[tuple[Sample, Rect]]) -> float:
    """Mean AJI (authors) of images without the nuclei that meet their clicked squares."""
    scores = []
    for sample, box in clicked:
        assert sample.labels is not None
        scores.append(metrics.aji_authors(without(sample.labels, box), without(segment(sample), box)))
    return float(np.mean(scores))


def without(labels: NDArray[np.int32], box: Rect) -> NDArray[np.int32]:
    """The label image without the nuclei that meet a square."""
    return np.where(np.isin(labels, np.unique(labels[box.slices()])), 0, labels)


def wsiseg(*arguments: object) -> None:
    """Run the command line; its tables go to stderr."""
    command = [sys.executable, "-m", "wsiseg", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
