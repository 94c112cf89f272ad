"""The short version of benchmarks/kill.py: a run killed with SIGKILL, at any moment, ends as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

from slides_made import discs, tiny_model, write_slide

ROOT = Path(__file__).parents[1]


def test_a_killed_run_that_is_started_again_gives_the_same_bytes(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "drawn.tif", discs((1400, 1400))[0])
    command = [sys.executable, str(ROOT / "benchmarks" / "kill.py"), str(slide), "--json"]
    command += ["--model", str(tiny_model(tmp_path / "tiny")), "--work-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--runs", "2", "--writing", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"] == found["runs"] == 2, done.stderr
    assert found["tiles"] > 100
    assert found["killed_while_segmenting"] >= 1, done.stderr
