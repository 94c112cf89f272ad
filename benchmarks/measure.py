"""What measurements and cells cost: their seconds beside those of the whole run.

    python benchmarks/measure.py SLIDE [--roi FILE] [--measure shape stain context] [--cells 5] [--workers 1] [--json]

The slide is segmented in this process, and everything that only measuring needs is timed: stain vectors, reading
pixels again, painting outlines, growing cells and tracing them, stains, context, shapes. `share` is their part of all
seconds that the threads of the run worked; less than 0.1 is wanted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg import cells, context, measure, measuring, pipeline, predict, result, survey
from wsiseg.deconvolution import H_E
from wsiseg.geometry import Rect
from wsiseg.memory import keep_memory
from wsiseg.models import DEFAULT, ModelRef, find_model
from wsiseg.nuclei import Rings

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "stain vectors": ((survey, "tissue_pixels"), (survey, "estimated")),
    "context": ((context, "context_columns"), (context, "Surface")),
    "read again": ((measuring, "read_again"),),
    "cells": ((cells, "cells"), (measuring, "cell_rings")),
    "stains": ((measure, "stain_columns"),),
    "shapes": ((result, "shape_columns"), (result, "cell_shape_columns")),
}
"""What is timed as what: where a function is looked up, and its name."""


def main() -> None:
    """Time a run, print."""
    options = arguments()
    keep_memory()  # as the command line does
    warm_up(options.model)
    clock = Clock()
    for stage, places in STAGES.items():
        for holder, name in places:
            setattr(holder, name, clock.timed(stage, getattr(holder, name)))
    cells.painted = clock.timed("paint", cells.painted, unless="cells")
    began, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="wsiseg-measure-") as place:
        found = pipeline.segment_slide(
            options.slide,
            model=options.model,
            outputs=[Path(place) / "out.geojson"],
            slide_mpp=options.slide_mpp,
            roi=options.roi,
            workers=options.workers,
            device=options.device,
            measure=options.measure,
            cells_um=options.cells,
            in_memory=False,
        )
    whole, busy = time.perf_counter() - began, time.process_time() - busy
    spent = {name: seconds for name, seconds in clock.seconds.items() if seconds}
    facts = {
        "share": round(sum(spent.values()) / busy, 4),
        "seconds": round(whole, 1),
        "processor_seconds": round(busy, 1),
        "nuclei": found.count,
        "stages": {name: round(seconds, 3) for name, seconds in spent.items()},
        "measure": options.measure,
        "cells_um": options.cells,
        "workers": options.workers,
    }
    if options.json:
        print(json.dumps(facts))
        return
    print("| stage | processor seconds | share of the run |\n|---|---|---|")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.2f} | {seconds / busy:.2%} |")
    print(f"| all | {sum(spent.values()):.2f} | {facts['share']:.2%} |")
    print(f"\n{found.count:,} nuclei, {busy:.0f} processor seconds, {whole:.0f} s")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--roi", type=Path, help="GeoJSON of the region to segment")
    parser.add_argument("--slide-mpp", type=float)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--measure", nargs="+", default=["shape", "stain", "context"])
    parser.add_argument("--cells", type=float, default=5.0, help="microns")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


class Clock:
    """Processor seconds that the threads of this process spend in each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys([*STAGES, "paint"], 0.0)
        self.lock = threading.Lock()
        self.inside = threading.local()

    def timed(self, stage: str, function: Callable[..., Any], *, unless: str = "") -> Callable[..., Any]:
        """The function, timed as part of a stage; not while another stage is timed that holds it."""

        def call(*args: Any, **options: Any) -> Any:
            outer = getattr(self.inside, "stage", None)
            if outer is not None and outer in (stage, unless):
                return function(*args, **options)
            self.inside.stage = stage
            began = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.inside.stage = outer
                with self.lock:
                    self.seconds[stage] += time.thread_time() - began

        return call


def warm_up(model: str) -> None:
    """Have loops compiled, or read from where they are kept, and the model loaded."""
    predict.load(ModelRef("", str(find_model(model)), "cpu"))
    square = Rings(np.array([[2, 2], [2, 9], [9, 9], [9, 2]], np.float32), np.array([0, 4]))
    labels = cells.cells(square, Rect(0, 0, 20, 20), factor=2, distance=4.0, shape=(20, 20))
    cells.trace_cover(labels)
    measure.stain_columns(np.zeros((*labels.shape, 3), np.uint8), labels, 1, H_E)


if __name__ == "__main__":
    main()
