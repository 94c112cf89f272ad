"""Detection probabilities: what they mean, and that they are held against masks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsiseg.calibrate import Judged, calibrated
from wsiseg.calibration import FEATURES, Calibration, expected_error, features, fit, left_out, reliability
from wsiseg.cli.app import app
from wsiseg.errors import DataError
from wsiseg.models import BUNDLED, bundled, describe

TRUE = Calibration(
    {"logit": 1.0, "log_area": 3.0, "log_area_squared": -0.4, "solidity": 4.0, "intercept": -8.0}, {}
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is measured of n nuclei, the probability by which each meets a true one, and whether it did."""
    rng = np.random.default_rng(seed)
    score, area, solidity = rng.uniform(0.3, 1, n), rng.uniform(5, 120, n), rng.uniform(0.6, 1, n)
    chance = TRUE.probability(score, area, solidity).astype(np.float64)
    return features(score, area, solidity), chance, rng.random(n) < chance


def judged(n: int, images: int, seed: int = 0) -> Judged:
    measured, _, met = drawn(n, seed)
    score = (1 / (1 + np.exp(-measured[:, 0]))).astype(np.float32)
    return Judged(measured, score, score, met, np.zeros(n, bool), np.arange(n) % images)


def test_a_fit_finds_the_probabilities_that_were_drawn_from() -> None:
    measured, chance, met = drawn(20_000)
    found = fit(measured, met, {}).weights
    odds = measured @ [found[name] for name in FEATURES] + found["intercept"]
    assert np.abs(1 / (1 + np.exp(-odds)) - chance).mean() < 0.01


def test_what_is_calibrated_is_nearer_to_the_truth_on_images_left_out() -> None:
    found = calibrated(judged(4000, images=8), {"tissue": "drawn"})
    assert expected_error(found.after) < 0.03 < expected_error(found.before)
    assert found.calibration.about["nuclei"] == 4000
    assert found.calibration.about["tissue"] == "drawn"


def test_an_image_does_not_decide_about_itself() -> None:
    measured, _, met = drawn(600)
    image = np.arange(600) % 3
    first = left_out(measured, met, image)
    changed = met.copy()
    changed[image == 0] = ~changed[image == 0]
    second = left_out(measured, changed, image)
    np.testing.assert_array_equal(first[image == 0], second[image == 0])
    assert np.abs(first[image == 1] - second[image == 1]).max() > 0.05


def test_error_counted_by_hand() -> None:
    said = np.array([0.05, 0.05, 0.85, 0.85, 0.85, 0.85])
    bins = reliability(said, np.array([0, 1, 1, 1, 1, 0], bool))
    assert [(b.nuclei, b.met) for b in bins] == [(2, 0.5), (4, 0.75)]
    assert expected_error(bins) == pytest.approx((2 * 0.45 + 4 * 0.10) / 6)
    assert reliability(np.array([1.0]), np.array([True]))[0].high == 1.0


@pytest.mark.parametrize(
    ("of", "said"),
    [(judged(50, images=1), "1 image holds nuclei"), (judged(0, images=2), "0 image")],
)
def test_too_little_to_fit(of: Judged, said: str) -> None:
    with pytest.raises(DataError, match=said):
        calibrated(of, {})


def test_all_of_one_kind_cannot_be_fitted() -> None:
    measured, _, _ = drawn(20)
    with pytest.raises(ValueError, match="20 of 20 nuclei meet a true one"):
        fit(measured, np.ones(20, bool), {})


def test_what_cannot_be_is_a_probability_still() -> None:
    found = TRUE.probability(np.array([0.0, 1.0, 0.5]), np.array([0.0, 10.0, 1e6]), np.array([np.nan, 1, 0]))
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_calibrate_changes_the_card_and_evaluate_tells_the_error(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BUNDLED / "he-points", model)
    card = json.loads((model / "model.json").read_text())
    card.pop("calibration", None)
    (model / "model.json").write_text(json.dumps(card))
    plain = describe(model)
    assert plain.calibration is None
    asked = ["--data", str(data), "--dataset", "tnbc"]
    run = CliRunner().invoke(
        app, ["calibrate", str(model), *asked, "--tissue", "breast", "--picture", str(tmp_path / "a.png")]
    )
    assert run.exit_code == 0, run.output
    after = describe(model)
    assert after.calibration is not None
    assert after.calibration.about["tissue"] == "breast"
    assert len(after.calibration.about["images"]["tnbc/val"]) == 7
    assert after.hash != plain.hash
    assert (tmp_path / "a.png").stat().st_size > 5000
    told = tmp_path / "told.json"
    asked += ["--model", str(model), "--reliability", str(tmp_path / "b.png"), "-o", str(told)]
    run = CliRunner().invoke(app, ["evaluate", *asked])
    assert run.exit_code == 0, run.output
    numbers = json.loads(told.read_text())["tnbc/val/probability"]
    assert numbers["expected calibration error"] < 0.08
    assert numbers["nuclei judged"] == sum(b["nuclei"] for b in numbers["bins"])
    assert numbers["of those meet none"] > numbers["of the others"]  # what is flagged is worse


def test_training_images_cannot_calibrate(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["calibrate", str(tmp_path), "--data", str(tmp_path), "--split", "train"])
    assert run.exit_code == 2
    assert "--split train" in run.output


@pytest.mark.parametrize("model", bundled())
def test_a_bundled_model_is_calibrated_on_images_it_was_not_trained_on(data: Path, model: str) -> None:
    card = describe(BUNDLED / model)
    assert card.calibration is not None
    assert set(card.calibration.weights) == {*FEATURES, "intercept"}
    used = {name for names in card.calibration.about["images"].values() for name in names}
    for dataset in ("multiorgan", "tnbc"):
        split = json.loads((data / dataset / "split.json").read_text())
        assert not used & {*split["train"], *split["test"]}


def test_bins_without_a_nucleus_are_left_out() -> None:
    assert len(reliability(np.array([0.31, 0.39]), np.array([True, True]))) == 1
    assert np.isnan(expected_error([]))
