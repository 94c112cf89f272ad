"""Training where next to nothing is installed, and what comes back from there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from slides_made import discs

from wsiseg.models import ModelRef
from wsiseg.predict import load

ROOT = Path(__file__).parents[1]
CONFIG = """
name = "carried"
recipe = "spn_ien"
data = [{ folder = "drawn" }]
[settings]
width = 0.25
spn = { crops = 4, batch = 2, size = 64 }
ien = { crops = 4, batch = 2, size = 64 }
[augmentation]
zoom = [0.9, 1.1]
"""
ABSENT = (
    "pydantic",
    "typer",
    "rich",
    "zarr",
    "dask",
    "shapely",
    "openslide",
    "safetensors",
    "geojson",
    "numba",
)


@pytest.fixture
def folder(tmp_path):
    picture, centres = discs((160, 160))
    (tmp_path / "drawn" / "images").mkdir(parents=True)
    (tmp_path / "drawn" / "points").mkdir()
    Image.fromarray(picture).save(tmp_path / "drawn" / "images" / "a.png")
    rows = "\n".join(f"{x},{y}" for y, x in centres)
    (tmp_path / "drawn" / "points" / "a.csv").write_text(f"x,y\n{rows}\n")
    (tmp_path / "drawn" / "split.json").write_text(json.dumps({"train": ["a"]}))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def run(script, *arguments, path=None):
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_trains_without_the_libraries_that_are_absent_there(folder):
    for name in ABSENT:
        (folder / "absent").mkdir(exist_ok=True)
        (folder / "absent" / f"{name}.py").write_text(f"raise ImportError('{name} is not installed here')\n")
    result = run(
        "train_folder.py", folder / "c.toml", "--data", folder, "-o", folder / "run", path=folder / "absent"
    )
    assert result.returncode == 0, result.stderr
    assert "ien: step 2 of 2" in result.stdout
    pieces = sorted((folder / "run" / "pieces").glob("*.pt"))
    assert pieces
    assert all(piece.stat().st_size < 15_000_000 for piece in pieces)

    joined = run("join_weights.py", folder / "c.toml", folder / "run" / "pieces", "-o", folder / "model")
    assert joined.returncode == 0, joined.stderr
    model = load(ModelRef("spn_ien", str(folder / "model")))
    assert model.card.name == "carried"
    trained = torch.load(folder / "run" / "spn.pt", weights_only=True)["head.weight"]
    torch.testing.assert_close(model.networks["spn"].head.weight, trained.half().float(), check_dtype=False)
