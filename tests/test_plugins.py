import json
import sys

import numpy as np
import pytest
from PIL import Image
from slides_made import discs
from typer.testing import CliRunner

from wsiseg import plugins, recipes
from wsiseg.cli.app import app
from wsiseg.errors import ConfigError

TOY = '''
"""A nucleus is what is dark enough; how dark that is, is learned."""
from __future__ import annotations
from dataclasses import dataclass, field
from functools import partial
import torch
from torch import nn
from wsiseg.instances import instances
from wsiseg.losses import partial_cross_entropy
from wsiseg.maps import Maps
from wsiseg.networks.forward import run
from wsiseg.recipes._point_targets import semantic_targets
from wsiseg.stages import Schedule, Stage

LABELS_NEEDED, GIVES, SOURCE = "points", "dark pieces", "nobody (2026)"
CLASS_NAMES, CLASS_COLORS = ("Nucleus",), ((200, 60, 60),)

@dataclass(frozen=True)
class Settings:
    min_area: int = 20
    dark: Schedule = field(default_factory=Schedule)

def network():
    net = nn.Conv2d(3, 1, 1)
    nn.init.constant_(net.weight, -4.0)
    nn.init.constant_(net.bias, 6.0)
    return net

def networks(settings):
    return {"dark": network}

def loss(net, images, targets, _):
    return partial_cross_entropy(net(images)[:, 0].float(), targets[:, 0])

def stages(settings):
    return (Stage("dark", network, semantic_targets, loss, settings.dark, 1),)

def maps(trained, settings, images, origins):
    return [Maps(prob) for prob in run(trained["dark"], images).sigmoid().cpu().numpy()]

def group(tile, settings, frame, *, threshold=None, min_area=None, device="cpu"):
    return instances((tile.prob[0] >= (threshold or 0.5)).astype("int32"), min_area=min_area or settings.min_area), None
'''

CONFIG = """
name = "toy"
recipe = "toy"
mpp = 0.25
halo = 64

[[data]]
folder = "drawn"
split = "all"

[settings.dark]
crops = 4
batch = 4
size = 64
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution of its own, as pip would lay it down, that adds one recipe and one that is broken."""
    site = tmp_path / "site"
    about = site / "toy-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "its_recipe.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[wsiseg.recipes]\ntoy = its_recipe\nbroken = nowhere\nspn_ien = its_recipe\n"
    )
    monkeypatch.syspath_prepend(site)
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()
    sys.modules.pop("its_recipe", None)


def test_a_recipe_from_elsewhere_is_one_file_and_trains_and_segments(installed, tmp_path):
    picture, centres = discs((640, 640))
    data = tmp_path / "data" / "drawn"
    for part in ("images", "points"):
        (data / part).mkdir(parents=True)
    Image.fromarray(picture).save(data / "images" / "a.png")
    np.savetxt(data / "points" / "a.csv", centres[:, ::-1], delimiter=",", header="x,y", comments="")
    (tmp_path / "toy.toml").write_text(CONFIG)
    options = ["train", str(tmp_path / "toy.toml"), "--data", str(tmp_path / "data")]
    trained = CliRunner().invoke(app, [*options, "-o", str(tmp_path / "run"), "--device", "cpu"])
    assert trained.exit_code == 0, trained.output
    model, out = next((tmp_path / "run").rglob("model.json")).parent, tmp_path / "out.geojson"
    options = ["segment", str(data / "images" / "a.png"), "-o", str(out), "--model", str(model)]
    found = CliRunner().invoke(app, [*options, "--slide-mpp", "0.25", "--workers", "1", "-q"])
    assert found.exit_code == 0, found.output
    nuclei = [
        f for f in json.loads(out.read_text())["features"] if f["properties"]["objectType"] == "detection"
    ]
    assert len(nuclei) == len(centres)


def test_it_is_listed(installed):
    listed = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "200"})
    assert "toy" in plugins.names(recipes)
    assert listed.exit_code == 2  # one of them is broken, and it is said which
    assert "recipes: 'broken' is nowhere, which cannot be imported" in listed.output


def test_what_ships_goes_before_what_is_installed(installed):
    assert plugins.load(recipes, "spn_ien").__name__ == "wsiseg.recipes.spn_ien"


def test_an_unknown_one_is_told_with_those_there_are(installed):
    with pytest.raises(ConfigError, match=r"recipes has no 'magic'; choose one of .*spn_ien.*toy"):
        plugins.load(recipes, "magic")


def test_all_that_ship_are_listed_with_what_they_need():
    listed = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    for name in plugins.names(recipes):
        assert name in listed.output
    assert "points on a share of the nuclei" in listed.output


def test_what_was_measured_is_told_with_its_seeds(monkeypatch, tmp_path):
    measured = {
        "spn_ien": {"mean": 0.5256, "deviation": None, "seeds": 1},
        "multi_task": {"mean": 0.4512, "deviation": 0.0041, "seeds": 3},
    }
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    monkeypatch.setattr("wsiseg.recipes._known.MEASURED", tmp_path / "measured.json")
    listed = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "200"})
    for told in ("0.526 (1 seed)", "0.451 ± 0.004 (3 seeds)", "not measured"):
        assert told in listed.output
