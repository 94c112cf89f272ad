"""Where the seconds of a slide go, and how near they are to what the networks alone take.

    python benchmarks/speed.py SLIDE [--roi FILE] [--workers 2] [--device cpu] [--model NAME] [--json]

The slide is segmented in this process, and every stage is timed: reading, the two networks, clustering, tracing,
measuring, keeping what is finished, joining seams, writing. The networks alone see as many tiles of the same size (or
--ceiling-tiles of them, and the time is scaled), half of them before the run and half after it, for a machine's speed
drifts; they are shared out evenly among as many workers, all from one picture that is in memory. That is the ceiling,
and `ceiling_ratio` is the whole run's time over it, start-up excluded from both. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsiseg import measure, pipeline, polygons, predict, store
from wsiseg.computing import compute
from wsiseg.execute import cores, threads
from wsiseg.geometry import Rect
from wsiseg.memory import keep_memory
from wsiseg.models import DEFAULT, ModelRef, find_model
from wsiseg.networks.forward import to_tensor
from wsiseg.slides import resample
from wsiseg.slides.opening import open_slide
from wsiseg.slides.slide import SlideRef
from wsiseg.survey import survey
from wsiseg.tiling import Tile

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "read": ((resample.PlanView, "read"),),
    "predict": ((predict.Model, "predict"),),
    "cluster": ((predict.Model, "group"),),
    "trace": ((polygons, "trace"),),
    "measure": ((measure, "centroids"), (measure, "means"), (measure, "stain_columns")),
    "keep": ((store.WorkingStore, "commit"),),
    "stitch": ((pipeline, "merge"),),  # less what it waits for tiles
    "write": ((pipeline, "convert"),),
}
"""What is timed as what: where a function is looked up, and its name."""


def main() -> None:
    """Time a run and its ceiling, print."""
    options = arguments()
    keep_memory()  # as the command line does
    folder = find_model(options.model)
    model = predict.load(ModelRef("", str(folder), options.device))
    warm_up(model)
    reference = SlideRef(str(options.slide), mpp=options.slide_mpp)
    before = networks_alone(options, survey(reference, model.card, roi=options.roi), model)
    clock = Clock()
    for stage, places in STAGES.items():
        for holder, name in places:
            setattr(holder, name, clock.timed(stage, getattr(holder, name)))
    pipeline.compute = clock.waited("stitch", compute)  # type: ignore[attr-defined]  # where it is looked up
    with tempfile.TemporaryDirectory(prefix="wsiseg-speed-") as place:
        began = time.perf_counter()
        result = pipeline.segment_slide(
            options.slide,
            model=options.model,
            outputs=[Path(place) / "out.geojson"],
            slide_mpp=options.slide_mpp,
            roi=options.roi,
            workers=options.workers,
            device=options.device,
            measure=options.measure,
            in_memory=False,
        )
        whole = time.perf_counter() - began
    stages = dict(clock.seconds)
    plan = result.survey.plan
    inside = Rect(0, 0, *plan.shape)
    mm2 = sum(tile.core.intersect(inside).area for tile in plan.tiles) * (plan.mpp / 1000) ** 2
    ceiling = (before + networks_alone(options, result.survey, model)) / 2
    found: dict[str, Any] = {
        "ceiling_ratio": round(whole / ceiling, 3),
        "seconds": round(whole, 1),
        "seconds_per_mm2": round(whole / mm2, 2),
        "ceiling_seconds_per_mm2": round(ceiling / mm2, 2),
        "ceiling_drift": round(2 * (ceiling / before - 1), 3),
        "tiles": plan.n_tiles,
        "mm2": round(mm2, 2),
        "nuclei": result.count,
        "stages": {name: round(seconds, 2) for name, seconds in stages.items()},
        "cluster_share": round(stages["cluster"] / sum(stages.values()), 3),
        "peak_mib": peak(options.device),
        "device": options.device,
        "workers": options.workers,
        "cores": cores(),
    }
    if options.json:
        print(json.dumps(found))
        return
    print("| stage | seconds of its threads | s/mm2 | share |\n|---|---|---|---|")
    total = sum(stages.values())
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.1f} | {seconds / mm2:.2f} | {seconds / total:.1%} |")
    print(
        f"\n{whole:.0f} s for {mm2:.2f} mm2 ({plan.n_tiles} tiles, {result.count:,} nuclei), {whole / mm2:.1f} s/mm2; the networks alone "
        f"{ceiling / mm2:.1f} s/mm2, after the run {found['ceiling_drift']:+.1%}; ratio {whole / ceiling:.3f}; peak memory {found['peak_mib']} MiB"
    )


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
    parser.add_argument("--workers", type=int, default=threads.default_workers(cores()))
    parser.add_argument("--measure", nargs="+", default=["shape"])
    parser.add_argument(
        "--ceiling-tiles", type=int, default=1 << 30, help="tiles that the networks alone see, at most"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


class Clock:
    """Seconds that the threads of this process spend in each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.lock = threading.Lock()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as part of a stage."""

        def call(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                with self.lock:
                    self.seconds[stage] += time.perf_counter() - began

        return call

    def waited(self, stage: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The function, whose results are waited for in a stage that is timed: that time is not the stage's own."""

        def call(*args: Any, **options: Any) -> Iterator[Any]:
            results = function(*args, **options)
            while True:
                began = time.perf_counter()
                result = next(results, None)
                with self.lock:
                    self.seconds[stage] -= time.perf_counter() - began
                if result is None:
                    return
                yield result

        return call


def warm_up(model: predict.Model) -> None:
    """Have libraries load and choose what they load and choose the first time."""
    noise = np.random.default_rng(0).integers(256, size=(1, 256, 256, 3), dtype=np.uint8)
    model.group(model.predict(noise)[0], Rect(0, 0, 256, 256))


def networks_alone(options: argparse.Namespace, survey: Any, model: predict.Model) -> float:
    """Seconds that the networks need for all tiles of a plan, by as many workers, from half as many."""
    plan = survey.plan
    slide = open_slide(survey.slide)
    middle = next(iter(list(plan.tiles)[plan.n_tiles // 2 :]))
    image = resample.PlanView(slide, survey.mpp, plan.mpp).read(middle.outer)
    slide.close()

    def see(tiles: tuple[Tile, ...]) -> int:
        predict.use_threads(max(1, cores() // options.workers))
        size = 1 if model.device == "cpu" else len(plan.tasks[0])
        for i in range(0, len(tiles), size):
            batch = tiles[i : i + size]
            origins = [(tile.outer.y0, tile.outer.x0) for tile in batch]
            networks = partial(model.recipe.maps, model.networks, model.settings)
            networks(to_tensor(np.stack([image] * len(batch))), origins)
        return len(tiles)

    # An equal share for each worker: the ceiling waits for nobody.
    each = max(1, min(plan.n_tiles, options.ceiling_tiles) // 2 // options.workers)
    tiles = list(plan.tiles)
    shares = [tuple(tiles[i * each : (i + 1) * each]) for i in range(options.workers)]
    began = time.perf_counter()
    with threads.start(workers=options.workers) as pool:
        seen = sum(count for _, count in pool.map(see, shares))
    return (time.perf_counter() - began) * plan.n_tiles / seen


def peak(device: str) -> int:
    """Peak memory of this process, MiB; on a GPU, what torch held of its memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated() / 2**20)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
