"""Killed at any moment and started again, does a run give what an uninterrupted one gives? It must, byte for byte.

    python benchmarks/kill.py SLIDE [--runs 20] [--writing 5] [--roi FILE] [--tile-size 128] [--json]

A run that is left alone tells how many tasks there are. Then runs are killed (SIGKILL, all their processes) a moment after a
random number of tasks was finished, some of them (`--writing`) once all nuclei are put together, and each is started
again. GeoJSON must be the same bytes, and so must every array of the store; only times of the provenance differ. Choose
a region and a tile size that make more than 100 tiles.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsiseg.models import DEFAULT

POLL = 0.002
"""Seconds between looks at what a run has written."""


def main() -> None:
    """Run, kill, resume, compare, print."""
    options = arguments()
    moments = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="wsiseg-kill-", dir=options.work_dir) as place:
        root = Path(place)
        began = time.perf_counter()
        whole = Run(options, root / "whole")
        whole.wait_for(whole.writing)
        tasks = whole.kept()
        whole.finish()
        length = time.perf_counter() - began
        expected = whole.digest()
        rows = []
        for number in range(options.runs):
            rows.append(
                killed(
                    options,
                    root / f"{number}",
                    expected,
                    int(moments.uniform(1, 0.9 * tasks)),
                    writing=number < options.writing,
                    wait=moments.uniform(0, 0.2),
                )
            )
            print(f"run {number + 1}: {rows[-1]}", file=sys.stderr, flush=True)
    found = {
        "runs": len(rows),
        "identical": sum(row["identical"] for row in rows),
        "killed_while_writing": sum(row["phase"] == "writing" for row in rows),
        "killed_while_segmenting": sum(row["phase"] == "segmenting" for row in rows),
        "tiles": whole.tiles,
        "seconds": round(length, 1),
    }
    if options.json:
        print(json.dumps(found))
        return
    print("| " + " | ".join(found) + " |\n" + "|---" * len(found) + "|")
    print("| " + " | ".join(map(str, found.values())) + " |")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--writing", type=int, default=5, help="of these, killed while writing")
    parser.add_argument("--roi", type=Path, help="GeoJSON of the region to segment")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--slide-mpp", type=float)
    parser.add_argument("--tile-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2, help="tasks in flight")
    parser.add_argument("--work-dir", type=Path, help="where runs are kept while this lasts")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


class Run:
    """A run of `wsiseg segment` in a folder of its own."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.tiles = folder, 0
        self.store = folder / ".out.geojson.wsiseg"
        command = [sys.executable, "-m", "wsiseg", "segment", options.slide]
        command += ["-o", folder / "out.geojson", "-o", folder / "out.zarr", "--model", options.model]
        command += ["--tile-size", options.tile_size, "--workers", options.workers, "--overwrite"]
        command += [] if options.roi is None else ["--roi", options.roi]
        command += [] if options.slide_mpp is None else ["--slide-mpp", options.slide_mpp]
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def kept(self) -> int:
        """Tasks that are finished."""
        return sum(1 for _ in self.store.glob("[0-9]*.npz"))

    def writing(self) -> bool:
        """Whether all nuclei are put together, and outputs are written; while it segments, it does both."""
        return (self.store / "nuclei.zarr").exists()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Until that, or the end."""
        while self.process.poll() is None and not happened():
            time.sleep(POLL)

    def kill(self) -> str:
        """Kill everything it began; what it was at."""
        if self.process.poll() is not None:
            return "ended before"
        phase = "writing" if self.writing() else "segmenting"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return phase

    def finish(self) -> None:
        """Until it ends well."""
        text = self.process.communicate()[1]
        if self.process.returncode:
            raise SystemExit(f"the run failed: {text}")
        words = text.replace(",", "").split()
        self.tiles = int(words[words.index("tiles") - 1]) if "tiles" in words else 0

    def digest(self) -> str:
        """Of the GeoJSON and of every array of the store."""
        files = [self.folder / "out.geojson"]
        arrays = sorted(p for p in (self.folder / "out.zarr").rglob("*") if p.is_file())
        files += [p for p in arrays if p.name != "zarr.json" or p.parent != self.folder / "out.zarr"]
        total = hashlib.sha256()
        for file in files:
            total.update(file.relative_to(self.folder).as_posix().encode() + file.read_bytes())
        return total.hexdigest()


def killed(
    options: argparse.Namespace, folder: Path, expected: str, after: int, *, writing: bool, wait: float
) -> dict[str, Any]:
    """One run that is killed `wait` seconds after so many tasks or while it writes, resumed and compared."""
    run = Run(options, folder)
    run.wait_for(run.writing if writing else lambda: run.kept() >= after)
    time.sleep(wait)
    phase = run.kill()
    kept = run.kept()
    resumed = Run(options, folder)
    resumed.finish()
    same = resumed.digest() == expected
    left = sorted(p.name for p in folder.iterdir() if p.name not in ("out.geojson", "out.zarr"))
    shutil.rmtree(folder)
    return {"phase": phase, "tasks kept": kept, "identical": same and not left, "left": left}


if __name__ == "__main__":
    main()
