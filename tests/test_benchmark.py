"""A protocol is run fold by fold, kept, and gone on with."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from slides_made import discs
from test_cli import refused, run

from wsiseg.evaluate import evaluate, grouped
from wsiseg.models import ModelRef, describe
from wsiseg.predict import load
from wsiseg.samples import read_samples

CONFIG = """
name = "drawn"
recipe = "spn_ien"
data = [{ folder = "discs" }]
[settings]
width = 0.25
spn = { crops = 4, batch = 2, size = 64 }
ien = { crops = 4, batch = 2, size = 64 }
"""


@pytest.fixture
def folder(tmp_path):
    """Three drawn images with masks, a split and two folds."""
    y, x = np.mgrid[:128, :128] + 0.5
    for part in ("images", "labels"):
        (tmp_path / "discs" / part).mkdir(parents=True)
    for number in range(3):
        picture, centres = discs((128, 128), seed=number)
        near = [np.hypot(y - cy, x - cx) < 7 for cy, cx in centres]
        labels = sum(inside * label for label, inside in enumerate(near, 1))
        Image.fromarray(picture).save(tmp_path / "discs" / "images" / f"{number}.png")
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "discs" / "labels" / f"{number}.png")
    split = {"train": ["0"], "val": ["1"], "test": ["2"]}
    folds = [{"fold": f"fold{i}", "train": [str(1 - i)], "val": [str(i)]} for i in range(2)]
    (tmp_path / "discs" / "split.json").write_text(json.dumps(split))
    (tmp_path / "discs" / "folds.json").write_text(json.dumps(folds))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def benchmark(folder, *more, config="c.toml"):
    return run(
        *("benchmark", folder / config, "--data", folder, "--dataset", "discs", "-q"),
        *("--runs", folder / "runs", "-o", folder / "reports", *more),
    )


def test_folds_are_averaged_and_not_trained_twice(folder):
    first = benchmark(folder, "--protocol", "folds")
    assert first.exit_code == 0, first.output
    reports = [json.loads((folder / f"reports/drawn-discs-fold{i}-seed0.json").read_text()) for i in range(2)]
    assert [list(report["images"]) for report in reports] == [["0"], ["1"]]
    mean = np.mean([report["mean"]["IoU"] for report in reports])
    assert f"| mean ± deviation | | {mean:.4f} ±" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in folder.glob("r*/**/*.[jp]*")}
    assert benchmark(folder, "--protocol", "folds").stdout == first.stdout
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {p for p in before if before[p] != after[p]} == set()


def test_folds_that_run_apart_make_one_table(folder):
    assert benchmark(folder, "--protocol", "folds", "--fold", "1").exit_code == 0
    assert not (folder / "reports/drawn-discs-fold0-seed0.json").exists()
    done = benchmark(folder, "--protocol", "folds", "--fold", "0")
    assert done.exit_code == 0, done.output
    assert [line.split(" ")[1] for line in done.stdout.splitlines()[2:]] == ["fold0", "fold1", "mean"]
    assert "fold 2 is not there; discs has 0 to 1" in refused(
        benchmark(folder, "--protocol", "folds", "--fold", "2")
    )


def test_the_official_protocol_scores_the_test_split_and_the_default_does_not(folder):
    assert benchmark(folder).exit_code == 0
    assert benchmark(folder, "--protocol", "official", "--seed", "3").exit_code == 0
    scored = {p.stem: list(json.loads(p.read_text())["images"]) for p in (folder / "reports").glob("*.json")}
    assert scored == {"drawn-discs-validation-seed0": ["1"], "drawn-discs-official-seed3": ["2"]}


def test_folds_start_from_a_model_and_the_report_says_which(folder):
    assert benchmark(folder).exit_code == 0
    model = folder / "runs" / "drawn-discs-validation-seed0" / "model"
    again = ("--from", model, "--seed", "1", "-o", folder / "more", "--runs", folder / "more")
    assert benchmark(folder, *again).exit_code == 0
    name = "drawn-discs-validation-seed1"
    report = json.loads((folder / f"more/{name}.json").read_text())
    assert report["settings"]["start"] == {"name": "drawn", "hash": describe(model).hash}
    # Some steps from there; another seed's random weights would be nowhere near.
    first, then = (load_file(f / "spn.safetensors") for f in (model, folder / "more" / name / "model"))
    moved = sum(float((then[n].float() - w.float()).square().sum()) for n, w in first.items())
    assert moved < 0.1 * sum(float(w.float().square().sum()) for w in first.values())
    assert "made with other settings" in refused(benchmark(folder, *again[2:]))


def test_views_are_scored_beside_one(folder):
    done = benchmark(folder, "--flips", "4")
    assert done.exit_code == 0, done.output
    report = json.loads((folder / "reports/drawn-discs-validation-seed0.json").read_text())
    model = load(ModelRef("spn_ien", str(folder / "runs/drawn-discs-validation-seed0/model"), "cpu"))
    samples = read_samples(folder / "discs", ["1"], mpp=0.25, from_masks=True)
    assert report["views"] == {"4": evaluate(samples, grouped(model, flips=4)).mean()}
    assert f"| 4 views averaged | | {report['views']['4']['IoU']:.4f} |" in done.stdout
    assert "flips 3 is not possible" in refused(benchmark(folder, "--flips", "3"))


def test_reports_of_other_settings_are_not_mixed(folder):
    assert benchmark(folder).exit_code == 0
    (folder / "d.toml").write_text(CONFIG.replace("width = 0.25", "width = 0.25\nthreshold = 0.4"))
    assert "made with other settings" in refused(benchmark(folder, config="d.toml"))


def test_further_data_sets_are_trained_on_as_well(folder):
    shutil.copytree(folder / "discs", folder / "more")
    (folder / "d.toml").write_text(
        CONFIG.replace('"discs" }', '"discs" }, { folder = "more", split = "val" }')
    )
    assert benchmark(folder, "--fold", "0", "--protocol", "folds", config="d.toml").exit_code == 0
    report = json.loads((folder / "reports/drawn-discs-fold0-seed0.json").read_text())
    assert report["training images"] == 2
    assert list(report["images"]) == ["0"]


def test_what_is_not_there_is_named(folder):
    assert "protocol 'ten' is unknown" in refused(benchmark(folder, "--protocol", "ten"))
    (folder / "d.toml").write_text(CONFIG.replace("discs", "squares"))
    assert "has no data set 'discs'; it names squares" in refused(benchmark(folder, config="d.toml"))
