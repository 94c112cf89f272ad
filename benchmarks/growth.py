"""As a slide grows, time per tile and peak memory are to stay the same.

    python benchmarks/growth.py SOURCE -o FOLDER [--sides 10000 20000 40000 60000] [--runs 3] [--model MODEL] [--json]

Slides of each size are made of SOURCE (`big_slide.py`) and segmented, each in a process of its own. Without --model
a rule of colour stands in for the networks, which finds about as many nuclei in a fifteenth of the time and takes as much
memory; what is measured is everything around them. Time per tile is by the clock from the first finished task to the
written result, start-up excluded, and processor seconds while tiles are computed, which a machine shared with other work
disturbs less. Tiles at the slide's far borders are cut: a tile is CORE x CORE px of the slide, however they lie in the grid.
Memory is the peak PSS of the process and its children. A size and run that is in FOLDER/growth.json already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory import family, pss
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter
from torch import Tensor

from wsiseg.maps import Maps
from wsiseg.memory import keep_memory
from wsiseg.models import DEFAULT
from wsiseg.pipeline import segment_slide
from wsiseg.progress import Progress
from wsiseg.recipes import spn_ien

CORE = 1536
"""Pixels a side of a tile's core."""
NETWORKS = 230
"""Bytes that the networks take for each pixel of a tile."""
PIECE = 1 << 25
"""Bytes of one of their maps."""


def main() -> None:
    """Make slides, run, print."""
    options = arguments()
    if options.one:
        one(options.source, options.output, options.model)
        return
    options.output.mkdir(parents=True, exist_ok=True)
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
            rows.append(
                {"side": side, "run": run, **measured(slide, options.output / "out.geojson", options.model)}
            )
            kept.write_text(json.dumps(rows, indent=1))
            print(rows[-1], file=sys.stderr, flush=True)
    table = {side: [row for row in rows if row["side"] == side] for side in options.sides}
    found = {
        side: {
            "seconds_per_tile": round(median(row["seconds"] for row in of) / (side / CORE) ** 2, 4),
            "cpu_seconds_per_tile": round(median(row["cpu_seconds"] for row in of) / (side / CORE) ** 2, 4),
            "peak_gb": round(max(row["peak_gb"] for row in of), 3),
            "tiles": of[0]["tiles"],
            "nuclei": of[0]["nuclei"],
            "after_seconds": round(median(row["after_seconds"] for row in of), 1),
            "runs": len(of),
        }
        for side, of in table.items()
    }
    growth = {
        "time_spread": spreads(rows, "seconds", per_tile=True),
        "cpu_spread": spreads(rows, "cpu_seconds", per_tile=True),
        "memory_spread": spreads(rows, "peak_gb", per_tile=False),
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
    print("\nlargest over smallest, run by run:")
    for what in ("time", "cpu", "memory"):
        print(what, *growth[f"{what}_spread"])


def spreads(rows: list[dict[str, Any]], what: str, *, per_tile: bool) -> list[float]:
    """Largest over smallest of all sizes, run by run; sizes of one run follow each other on a machine of one speed."""
    found = []
    for run in sorted({row["run"] for row in rows}):
        values = [row[what] / (row["side"] ** 2 if per_tile else 1) for row in rows if row["run"] == run]
        found.append(round(max(values) / min(values), 3))
    return found


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of slides and results")
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 20_000, 40_000, 60_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", help="real networks instead of the stand-in")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(slide: Path, output: Path, model: str | None) -> dict[str, Any]:
    """A run in a process of its own: what it says, and its peak memory."""
    command = [sys.executable, __file__, str(slide), "-o", str(output), "--one"]
    command += [] if model is None else ["--model", model]
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


def one(slide: Path, output: Path, model: str | None) -> None:
    """Segment one slide and print how long its tiles took."""
    keep_memory()
    if model is None:
        spn_ien.maps = stand_in  # type: ignore[assignment]  # which networks they are does not matter to it
    moments: list[tuple[float, float, int]] = []

    def watch(now: Progress) -> None:
        if now.stage == "segmenting":
            moments.append((time.perf_counter(), time.process_time(), now.done))

    result = segment_slide(
        slide,
        model=model or DEFAULT,
        outputs=[output],
        overwrite=True,
        in_memory=False,
        tile_size=CORE,
        progress=watch,
    )
    (began, worked, first), (ended, working, last) = moments[0], moments[-1]
    # As if the first task had been watched too.
    share, after = last / max(1, last - first), time.perf_counter() - ended
    print(
        json.dumps(
            {
                "tiles": result.survey.plan.n_tiles,
                "nuclei": result.count,
                "seconds": round((ended - began) * share + after, 2),
                "cpu_seconds": round((working - worked) * share, 2),
                "after_seconds": round(after, 2),
            }
        )
    )


def stand_in(
    _: object, settings: spn_ien.Settings, images: Tensor, origins: Sequence[tuple[int, int]]
) -> list[Maps]:
    """Maps without a network: what is dark in red light is a nucleus, and its pixels point at its darkest place."""
    pixels = images.shape[2] * images.shape[3]
    held = [np.empty(PIECE, np.uint8) for _ in range(NETWORKS * pixels // PIECE)]
    for piece in held:
        piece[::4096] = 1  # a page that nobody wrote to is not there
    held.clear()
    return [darkness(image.numpy(), settings) for image in images]


def darkness(image: NDArray[np.float32], settings: spn_ien.Settings) -> Maps:
    """Maps of one image (3, H, W) in 0..1, as many nuclei and as large as the bundled model sees in the colon slide.

    They are found at half the size: the less the stand-in takes, the more of the time is what is measured.
    """
    red = image[0]
    density = gaussian_filter(-np.log((red[::2, ::2] + red[1::2, 1::2]) / 2 + 0.02), 1)
    prob = 1 / (1 + np.exp(8 * (0.75 - density)))
    darkest = (maximum_filter(density, 7) == density) & (prob >= settings.threshold)
    nearest = distance_transform_edt(~darkest, return_distances=False, return_indices=True)
    offsets = (enlarged(2 * nearest.astype(np.float32)) - np.indices(red.shape, np.float32)) * settings.scale
    embedding = np.zeros((settings.dim, *red.shape), np.float16)
    embedding[:2] = offsets.clip(-settings.radius, settings.radius)
    return Maps(enlarged(prob[None].astype(np.float32)), embedding)


def enlarged(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) to (C, 2 H, 2 W), every pixel four times."""
    return maps.repeat(2, 1).repeat(2, 2)


if __name__ == "__main__":
    main()
