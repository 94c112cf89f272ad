"""`wsiseg train` and `wsiseg pseudo-label`, from clicks on a slide to a model that segments."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from slides_made import discs, write_slide
from test_cli import refused, run

from wsiseg.cli.train import HALF_WAY
from wsiseg.models import describe

CONFIG = """
name = "mine"
recipe = "spn_ien"
[settings]
width = 0.25
spn = { crops = 8, batch = 2, size = 64 }
ien = { crops = 8, batch = 2, size = 64 }
spn_again = { crops = 8, batch = 2, size = 64 }
[about]
licence = "CC BY-NC-SA 4.0"
"""


@pytest.fixture
def clicked(tmp_path: Path) -> Path:
    """A folder with a configuration, a slide and a manifest of its clicked points."""
    picture, centres = discs((256, 256))
    write_slide(tmp_path / "a.tif", picture)
    area = {"type": "Polygon", "coordinates": [[[0, 0], [256, 0], [256, 256], [0, 256], [0, 0]]]}
    points = {"type": "MultiPoint", "coordinates": centres[:, ::-1].tolist()}
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in (area, points)]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (tmp_path / "slides.csv").write_text("slide,points\na.tif,a.geojson\n")
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def test_clicks_become_a_model_and_a_model_a_better_one(clicked: Path) -> None:
    given = ("train", clicked / "c.toml", "--slides", clicked / "slides.csv", "-q")
    assert run(*given, "-o", clicked / "first").exit_code == 0
    assert run(*given, "-o", clicked / "second", "--from", clicked / "first" / "model").exit_code == 0
    first, second = (describe(clicked / name / "model") for name in ("first", "second"))
    assert first.name == "mine"
    assert first.hash != second.hash
    assert "from" not in first.about
    start = second.about["from"]
    assert (start["name"], start["hash"], start["licence"]) == ("mine", first.hash, "CC BY-NC-SA 4.0")
    result = run(
        "segment", clicked / "a.tif", "-o", clicked / "a.out.geojson", "--model", clicked / "second/model"
    )
    assert result.exit_code == 0, result.output


def test_few_clicks_take_a_model_part_of_the_way(clicked: Path) -> None:
    given = ("train", clicked / "c.toml", "--slides", clicked / "slides.csv", "-q")
    assert run(*given, "-o", clicked / "first").exit_code == 0
    first = load_file(clicked / "first/model/spn.safetensors")
    told = run(*given[:-1], "-o", clicked / "second", "--from", clicked / "first/model")
    assert told.exit_code == 0, told.output
    clicks = len(json.loads((clicked / "a.geojson").read_text())["features"][1]["geometry"]["coordinates"])
    share = clicks / (clicks + HALF_WAY)
    assert f"{clicks} clicked nuclei take the model {share:.0%} of the way" in told.output.replace("\n", " ")
    assert ("so few seldom" in told.output) == (clicks < HALF_WAY)
    taught = torch.load(clicked / "second/spn.pt", weights_only=True)
    given_out = load_file(clicked / "second/model/spn.safetensors")
    way = [(given_out[n] - first[n], w - first[n]) for n, w in taught.items() if w.is_floating_point()]
    gone, whole = (torch.cat([tensors[side].double().ravel() for tensors in way]) for side in (0, 1))
    assert whole.norm() > 0
    assert (gone @ whole / (whole @ whole)).item() == pytest.approx(share, rel=0.02)


def test_a_network_with_another_head_goes_all_the_way(clicked: Path) -> None:
    given = ("--slides", clicked / "slides.csv", "-q")
    assert run("train", clicked / "c.toml", *given, "-o", clicked / "first").exit_code == 0
    (clicked / "d.toml").write_text(CONFIG.replace("width = 0.25", "width = 0.25\nshared = true"))
    told = run(
        "train", clicked / "d.toml", *given[:-1], "-o", clicked / "second", "--from", clicked / "first/model"
    )
    assert told.exit_code == 0, told.output
    assert "of the way" not in told.output


def test_a_dry_run_leaves_no_model(clicked: Path) -> None:
    result = run(
        "train", clicked / "c.toml", "--slides", clicked / "slides.csv", "-o", clicked / "run", "--dry-run"
    )
    assert result.exit_code == 0
    assert not (clicked / "run" / "model").exists()


def test_a_model_of_another_size_cannot_be_gone_on_from(clicked: Path) -> None:
    result = run(
        "train",
        clicked / "c.toml",
        "--slides",
        clicked / "slides.csv",
        "--from",
        "he-points",
        "-o",
        clicked / "run",
    )
    assert "its spn is of another size than the configuration's" in refused(result)


def test_a_configuration_without_data_sets_needs_slides(clicked: Path) -> None:
    result = run("train", clicked / "c.toml", "--data", clicked, "-o", clicked / "run")
    assert "mine: names no data set; give --slides" in refused(result)


def test_points_that_cannot_be_used_are_one_line(clicked: Path) -> None:
    (clicked / "a.geojson").write_text('{"type": "Point", "coordinates": [1, 2]}')
    result = run("train", clicked / "c.toml", "--slides", clicked / "slides.csv", "-o", clicked / "run")
    assert "no polygon" in refused(result)
    assert not (clicked / "run").exists()


def test_pseudo_labels_are_drawn(clicked: Path) -> None:
    result = run(
        "pseudo-label", clicked / "c.toml", "--slides", clicked / "slides.csv", "-o", clicked / "pictures"
    )
    assert result.exit_code == 0, result.output
    (picture,) = (clicked / "pictures").glob("*.png")
    from PIL import Image

    pixels = np.asarray(Image.open(picture)).astype(int)
    red = (pixels[..., 0] > pixels[..., 1] + 60).any(0)
    assert red[pixels.shape[1] // 3 :].any()


def test_pseudo_labels_are_those_that_a_model_is_taught(clicked: Path) -> None:
    slides = ("--slides", clicked / "slides.csv")
    (clicked / "c.toml").write_text(CONFIG.replace("width = 0.25", "width = 0.25\nrefresh = 0.3"))
    assert run("train", clicked / "c.toml", *slides, "-q", "-o", clicked / "first").exit_code == 0
    given = ("pseudo-label", clicked / "c.toml", *slides)
    for folder, start in (("colours", ()), ("refreshed", ("--from", clicked / "first/model"))):
        result = run(*given, "-o", clicked / folder, *start)
        assert result.exit_code == 0, result.output
    colours, refreshed = (next((clicked / f).glob("*.png")).read_bytes() for f in ("colours", "refreshed"))
    assert colours != refreshed


def test_a_configuration_that_teaches_nothing_has_no_labels_to_draw(clicked: Path) -> None:
    slides = ("--slides", clicked / "slides.csv")
    assert run("train", clicked / "c.toml", *slides, "-q", "-o", clicked / "first").exit_code == 0
    (clicked / "c.toml").write_text(CONFIG.replace("crops = 8", "crops = 0"))
    result = run(
        "pseudo-label", clicked / "c.toml", *slides, "-o", clicked / "l", "--from", clicked / "first/model"
    )
    assert "nothing is taught" in refused(result)
    assert not (clicked / "l").exists()
