"""As a slide grows, time per tile and peak memory are to stay the same.

    python benchmarks/growth.py SOURCE -o FOLDER [--sides 10000 20000 40000 60000] [--runs 3] [--model MODEL] [--json]

Slides of each size are made of SOURCE (`big_slide.py`) and segmented, each in a process of its own. Without --model
the networks are stand-ins: an SPN an eighth as wide as published, taught for some seconds to see what the bundled model
sees, and an IEN that knows positions alone; what is measured is everything around the networks. Time per tile is from
the first finished task to the last, start-up excluded: by the clock, and processor seconds, which a machine shared with
other work disturbs less; memory is the peak PSS of the process and its children. A size
and run that is in FOLDER/growth.json already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from memory import family, pss

from wsiseg.geometry import Rect
from wsiseg.memory import keep_memory
from wsiseg.models import ModelRef, find_model
from wsiseg.networks.forward import to_tensor
from wsiseg.pipeline import segment_slide
from wsiseg.predict import load, save_model
from wsiseg.progress import Progress
from wsiseg.recipes import spn_ien
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef


def main() -> None:
    """Make slides, run, print."""
    options = arguments()
    if options.one:
        one(options.source, options.output, options.model)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    model = options.model or str(stand_in(options.output / "stand-in", options.source))
    kept = options.output / "growth.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for run in range(options.runs):
        for side in options.sides:
            if any(row["side"] == side and row["run"] == run for row in rows):
                continue
            slide = options.output / f"{side}.tif"
            if not slide.exists():
                make = [sys.executable, str(Path(__file__).with_name("big_slide.py")), str(options.source)]
                part = slide.with_suffix(".part.tif")
                subprocess.run([*make, str(part), "--side", str(side)], check=True)
                part.replace(slide)
            rows.append({"side": side, "run": run, **measured(slide, options.output / "out.geojson", model)})
            kept.write_text(json.dumps(rows, indent=1))
            print(rows[-1], file=sys.stderr, flush=True)
    table = {side: [row for row in rows if row["side"] == side] for side in options.sides}
    found = {
        side: {
            "seconds_per_tile": round(median(row["seconds_per_tile"] for row in of), 4),
            "cpu_seconds_per_tile": round(median(row["cpu_seconds_per_tile"] for row in of), 4),
            "peak_gb": round(max(row["peak_gb"] for row in of), 3),
            "tiles": of[0]["tiles"],
            "nuclei": of[0]["nuclei"],
            "after_seconds": round(median(row["after_seconds"] for row in of), 1),
            "runs": len(of),
        }
        for side, of in table.items()
    }
    growth = {
        "time_spread": spread([row["seconds_per_tile"] for row in found.values()]),
        "cpu_spread": spread([row["cpu_seconds_per_tile"] for row in found.values()]),
        "memory_spread": spread([row["peak_gb"] for row in found.values()]),
        "sides": found,
    }
    if options.json:
        print(json.dumps(growth))
        return
    print(
        "| px a side | tiles | nuclei | s a tile | processor s a tile | joining and writing, s | peak GB | runs |\n"
        + "|---" * 8
        + "|"
    )
    for side, row in found.items():
        print(
            f"| {side:,} | {row['tiles']:,} | {row['nuclei']:,} | {row['seconds_per_tile']:.3f} "
            f"| {row['cpu_seconds_per_tile']:.3f} | {row['after_seconds']} | {row['peak_gb']:.2f} | {row['runs']} |"
        )
    print(
        f"\nlargest over smallest: time {growth['time_spread']}, processor time {growth['cpu_spread']}, "
        f"memory {growth['memory_spread']}"
    )


def spread(values: list[float]) -> float:
    """Largest over smallest."""
    return round(max(values) / min(values), 3)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of slides and results")
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 20_000, 40_000, 60_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", help="instead of the stand-in")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(slide: Path, output: Path, model: str) -> dict[str, Any]:
    """A run in a process of its own: what it says, and its peak memory."""
    command = [sys.executable, __file__, str(slide), "-o", str(output), "--model", model, "--one"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(pss(pid) for pid in family(process.pid)))
        time.sleep(0.5)
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{slide}: the run ended with {process.returncode}")
    return {**json.loads(said.splitlines()[-1]), "peak_gb": round(peak / 1e9, 3)}


def one(slide: Path, output: Path, model: str) -> None:
    """Segment one slide and print how long its tiles took."""
    keep_memory()
    moments: list[tuple[float, float, int]] = []

    def watch(now: Progress) -> None:
        if now.stage == "segmenting":
            moments.append((time.perf_counter(), time.process_time(), now.done))

    result = segment_slide(
        slide, model=model, outputs=[output], overwrite=True, in_memory=False, progress=watch
    )
    (began, worked, first), (ended, working, last) = moments[0], moments[-1]
    tiles = max(1, last - first)
    print(
        json.dumps(
            {
                "tiles": result.survey.plan.n_tiles,
                "nuclei": result.count,
                "seconds_per_tile": round((ended - began) / tiles, 4),
                "cpu_seconds_per_tile": round((working - worked) / tiles, 4),
                "after_seconds": round(time.perf_counter() - ended, 2),
            }
        )
    )


def stand_in(folder: Path, source: Path) -> Path:
    """A model that is small and sees about as many nuclei as the bundled one."""
    if (folder / "model.json").exists():
        return folder
    teacher = load(ModelRef("spn_ien", str(find_model("he-points")), "cpu"))
    ref = SlideRef(str(source))
    slide = open_slide(ref)
    view = PlanView(slide, resolve_mpp(slide, ref), teacher.card.mpp)
    y, x = (n // 128 * 64 for n in view.shape)
    image = view.read(Rect(y, x, y + 512, x + 512))
    slide.close()
    wanted = torch.from_numpy(teacher.predict(image[None])[0].prob[0])
    settings = {**teacher.card.settings, "width": 0.125}
    torch.manual_seed(0)
    built = spn_ien.networks(spn_ien.Settings(**settings))
    networks = {name: build() for name, build in built.items()}
    optimiser = torch.optim.Adam(networks["spn"].parameters(), lr=5e-3)
    for _ in range(120):
        logits = networks["spn"](to_tensor(image[None]).contiguous())[0, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for weights in networks["ien"].head.parameters():
        torch.nn.init.zeros_(weights)
    card = teacher.card
    about = {
        "name": "stand-in",
        "recipe": "spn_ien",
        "mpp": card.mpp,
        "halo": card.halo,
        "settings": settings,
        "class_names": list(card.class_names),
        "class_colors": [list(color) for color in card.class_colors],
        "about": {"licence": "as the bundled model's"},
    }
    save_model({name: network.eval() for name, network in networks.items()}, folder, about)
    print(f"stand-in taught, loss {np.round(loss.item(), 3)}", file=sys.stderr)
    return folder


if __name__ == "__main__":
    main()
