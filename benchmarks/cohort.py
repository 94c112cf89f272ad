"""A cohort of many slides: how long planning, looking and merging take, and whether races lose anything.

    python benchmarks/cohort.py [--slides 1000] [--races 100] [--json]

The slides are copies of one small drawn slide, their results stand-ins of a few nuclei: what is measured is everything
but the segmenting. In the races two processes begin the same slide at the same moment, in half of them one of the two
takes the other for dead at once, so that both compute: there must be one result, as of a run alone, and no loss.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from slides_made import discs, tiny_model, write_slide

from wsiseg.cohort.manifest import read_manifest
from wsiseg.cohort.outcome import Outcome, outcome_path, write_outcome
from wsiseg.cohort.plan import Options, Plan, make_plan, read_plan, write_plan
from wsiseg.cohort.run import take
from wsiseg.cohort.slide import Means, lease_path
from wsiseg.cohort.status import status
from wsiseg.cohort.stop import Stop
from wsiseg.cohort.tables import write_nuclei, write_slides
from wsiseg.pipeline import segment_slide

T = TypeVar("T")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsiseg-cohort-") as place:
        found = {**many(Path(place) / "many", options.slides), **races(Path(place) / "races", options.races)}
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


def copies(folder: Path, count: int, side: int) -> Path:
    """A folder of `count` names of one small slide."""
    folder.mkdir(parents=True)
    first = write_slide(folder / "00000.tif", discs((side, side))[0])
    for number in range(1, count):
        os.link(first, folder / f"{number:05d}.tif")
    return folder


def many(place: Path, count: int) -> dict[str, float]:
    """Seconds of planning, looking and merging, and the peak of memory."""
    model = tiny_model(place / "tiny")
    slides = copies(place / "slides", count, 256)
    planning, plan = timed(lambda: planned(slides, place / "results", model))
    segment_slide(slides / "00000.tif", model=model, outputs=[place / "one.geojson"], tile_size=192)
    for slide in plan.good:
        os.link(place / "one.geojson", plan.folder / slide.output)
        write_outcome(outcome_path(plan.state, slide.number), Outcome("done", nuclei=36, mm2=slide.mm2))
    looking, now = timed(lambda: status(read_plan(plan.folder)))
    assert now.counts["done"] == count
    merging, _ = timed(lambda: write_slides(plan, place / "slides.parquet"))
    nuclei, rows = timed(lambda: write_nuclei(plan, place / "nuclei.parquet"))
    return {
        "slides": count,
        "planning_s": round(planning, 2),
        "status_s": round(looking, 2),
        "merge_slides_s": round(merging, 2),
        "merge_nuclei_s": round(nuclei, 2),
        "nuclei": rows,
        "inodes_a_slide": round((sum(1 for _ in plan.folder.rglob("*")) - 2) / count, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that something takes, and what it gives."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def planned(slides: Path, results: Path, model: Path) -> Plan:
    """The plan of a folder, written."""
    return write_plan(make_plan(read_manifest(slides), results, Options(str(model), tile_size=192)))


def races(place: Path, count: int) -> dict[str, int]:
    """Two processes and every slide: how often there was one result, how often the second took over."""
    model = tiny_model(place / "tiny")
    plan = planned(copies(place / "slides", count, 256), place / "results", model)
    segment_slide(place / "slides" / "00000.tif", model=model, outputs=[place / "one.geojson"], tile_size=192)
    context = multiprocessing.get_context("spawn")
    gate, ended = context.Barrier(2), context.SimpleQueue()
    racers = [context.Process(target=race, args=(plan.folder, who, gate, ended)) for who in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    if any(racer.exitcode for racer in racers):
        raise SystemExit("a racer failed")
    wins = [ended.get() for _ in racers]
    alone = (place / "one.geojson").read_bytes()
    one = sum((plan.folder / slide.output).read_bytes() == alone for slide in plan.good)
    left = [path.name for path in plan.state.iterdir() if path.suffix != ".json"]
    return {
        "races": count,
        "one_whole_result": one,
        "outcomes": status(plan).counts["done"],
        "ended_by_first": wins[0],
        "ended_by_second": wins[1],
        "left_behind": len(left),
    }


def race(folder: Path, who: int, gate: object, ended: object) -> None:
    """Begin every slide of the plan at the moment at which the other process does."""
    plan, won = read_plan(folder), 0
    for slide in plan.good:
        gate.wait()  # type: ignore[attr-defined]
        if who and slide.number % 2:
            # In every other race the second process lets the other begin, and takes it for dead.
            path, end = lease_path(plan, slide), time.monotonic() + 2
            while time.monotonic() < end and not outcome_path(plan.state, slide.number).exists():
                with suppress(FileNotFoundError):
                    os.utime(path, (0, 0))
                    break
        won += take(plan, slide, Means(), Stop(), lambda _: None) is not None
    ended.put(won)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
