"""Do corrected nuclei help? Those of one image of an organ train the bundled model further; others of the organ are scored.

    python benchmarks/corrections.py --data FOLDER -o RUNS [--nuclei 10 50 200 1000] [--organs Breast ...] [--json]

What somebody would make of a model's nuclei is simulated by the true outlines, inside a square around the middle of the
organ's validation image of MultiOrgan, that holds so many: as QuPath exports detections, with the square as an area.
`wsiseg train --corrections ... --from he-points` goes from there, and the organ's two test images are scored before and
after, with the model's own thresholds: nothing is chosen on them. A run's report is kept in
benchmarks/accuracy/corrections/ as it ends; one that was cut off goes on. The table is benchmarks/accuracy/corrections.md,
the curve docs/images/corrections.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from from_clicks import annotation, square_of
from matplotlib.figure import Figure
from slide_files import write_tiff

from wsiseg.evaluate import METRICS, evaluate, grouped
from wsiseg.geometry import Rect
from wsiseg.models import ModelRef, describe, find_model
from wsiseg.outputs import write_text
from wsiseg.polygons import trace
from wsiseg.predict import load, relabelled
from wsiseg.samples import Sample, read_samples, read_split

REPORTS = Path(__file__).parent / "accuracy" / "corrections"
CURVE = Path(__file__).parents[1] / "docs" / "images" / "corrections.png"
MPP = 0.25
SMALLEST_AREA = 130
"""Side in pixels of the smallest square that counts as a corrected area: a little more than 1,000 square microns."""

ORGANS = ("Breast", "Kidney", "Liver", "Prostate")


def main() -> None:
    """Correct, train, score; write the table and the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--nuclei", type=int, nargs="*", default=[10, 50, 200, 1000])
    parser.add_argument("--organs", nargs="+", default=list(ORGANS), choices=ORGANS)
    parser.add_argument("--from", dest="start", default="he-points", help="model to start from")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    root = options.data / "multiorgan"
    for organ in options.organs:
        of_organ = {
            split: [n for n in read_split(root, split) if n.startswith(organ)] for split in ("val", "test")
        }
        (source,) = read_samples(root, of_organ["val"], from_masks=True)
        scored = read_samples(root, of_organ["test"], from_masks=True)
        for count in (0, *options.nuclei):
            run(options, organ, source, scored, count)
    kept = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    write_text(REPORTS.with_suffix(".md"), table(kept))
    draw(kept, CURVE)
    print(json.dumps({"rows": kept}) if options.json else table(kept))


def run(options: argparse.Namespace, organ: str, source: Sample, scored: list[Sample], count: int) -> None:
    """One number of corrected nuclei of one organ; 0 is the model as it is. What is there already stays."""
    report = REPORTS / f"{organ}-{count}.json"
    if report.exists():
        return
    model, minutes, corrected, said = find_model(options.start), 0.0, 0, ""
    if count:
        folder = options.output / f"{organ}-{count}"
        slide, file = options.output / f"{organ}.tif", options.output / f"{organ}-{count}.geojson"
        if not slide.exists():
            write_tiff(slide, source.image, MPP)
        corrected = write_corrections(file, source, count)
        command = ["--corrections", str(file), "--slide", str(slide), "--from", options.start]
        began = time.perf_counter()
        told = subprocess.run(
            [sys.executable, "-m", "wsiseg", "train", *command, "-o", str(folder), "--device", "cpu"],
            check=True,
            capture_output=True,
            text=True,
        )
        minutes, model = (time.perf_counter() - began) / 60, folder / "model"
        said = next((line for line in told.stderr.splitlines() if "held" in line), "")
    mean = evaluate(scored, grouped(load(ModelRef(describe(model).recipe, str(model))))).mean()
    kept = {
        "organ": organ,
        "nuclei": count,
        "corrected": corrected,
        "minutes": round(minutes, 1),
        "said": said,
        **{name: mean[name] for name in METRICS},
    }
    write_text(report, json.dumps(kept, indent=1) + "\n")
    print(f"{organ}, {count}: AJI {mean['AJI']:.4f}", file=sys.stderr, flush=True)


def write_corrections(path: Path, sample: Sample, count: int) -> int:
    """True outlines of a square of about `count` nuclei, and the square, as QuPath exports them; how many there are."""
    assert sample.labels is not None
    box = square_of(sample.points, sample.image.shape[0], count)
    # A smaller annotation would be a nucleus.
    box = box.grow(max(0, -(-(SMALLEST_AREA - (box.y1 - box.y0)) // 2)))
    vertices, offsets = trace(relabelled(sample.labels))
    inside = np.flatnonzero(box.contains(sample.points))
    features = [annotation("Polygon", [ring(corners_of(box))])]
    for i in inside.tolist():
        feature = annotation("Polygon", [ring(vertices[offsets[i] : offsets[i + 1]][:, ::-1].tolist())])
        features.append({**feature, "properties": {"objectType": "detection"}})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return len(inside)


def corners_of(box: Rect) -> list[list[float]]:
    """Its corners, (x, y)."""
    return [[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]]


def ring(corners: list[list[float]]) -> list[list[float]]:
    """Corners that end where they begin."""
    return [*corners, corners[0]]


def table(kept: list[dict[str, Any]]) -> str:
    """AJI by organ and number as Markdown."""
    numbers = sorted({row["nuclei"] for row in kept})
    at = {(row["organ"], row["nuclei"]): row for row in kept}
    lines = [
        "AJI (authors) / AJI on the two test images of an organ, after so many corrected nuclei of its validation image, by "
        "`python benchmarks/corrections.py --data FOLDER -o RUNS`. 0 is the model that it starts from.",
        "",
        "| organ | " + " | ".join(f"{n:,}" for n in numbers) + " |",
        "|---" * (len(numbers) + 1) + "|",
    ]
    for organ in ORGANS:
        rows = [at.get((organ, n)) for n in numbers]
        if any(rows):
            cells = [f"{r['AJI (authors)']:.3f} / {r['AJI']:.3f}" if r else "" for r in rows]
            lines.append(f"| {organ} | " + " | ".join(cells) + " |")
    whole = [[at[o, n] for o in ORGANS] for n in numbers if all((o, n) in at for o in ORGANS)]
    if len(whole) == len(numbers):
        means = [[np.mean([r[m] for r in rows]) for m in ("AJI (authors)", "AJI")] for rows in whole]
        lines.append("| mean | " + " | ".join(f"{a:.3f} / {b:.3f}" for a, b in means) + " |")
        minutes = [np.mean([r["minutes"] for r in rows]) for rows in whole]
        lines.append("| minutes | " + " | ".join(f"{m:.0f}" for m in minutes) + " |")
    return "\n".join(lines) + "\n"


def draw(kept: list[dict[str, Any]], path: Path) -> None:
    """AJI over corrected nuclei, a line an organ, as a picture."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for organ in ORGANS:
        rows = sorted((r for r in kept if r["organ"] == organ), key=lambda r: int(r["nuclei"]))
        if rows:
            axes.plot(
                [max(3, r["corrected"]) for r in rows], [r["AJI"] for r in rows], marker="o", label=organ
            )
    axes.set(
        xscale="log", xlabel="corrected nuclei (leftmost: none)", ylabel="AJI, other images of the organ"
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
