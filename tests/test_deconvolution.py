"""Stain vectors: given, estimated, and refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsiseg.deconvolution import H_DAB, H_E, Stains, angle, estimated, read_stains
from wsiseg.errors import ConfigError

QUPATH = {
    "Name": "H-DAB default",
    "Stain 1": "Hematoxylin",
    "Values 1": "0.65111 0.70119 0.29049",
    "Stain 2": "DAB",
    "Values 2": "0.26917 0.56824 0.77759",
    "Background": " 255 255 255",
}


def tissue(stains: Stains, *, seed: int = 0, count: int = 60_000) -> NDArray[np.uint8]:
    """Pixels of both stains in all shares, some of one alone, glass and dirt."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.15, (count, 2))
    amounts[: count // 4, 0] *= 0.02
    amounts[count // 4 : count // 2, 1] *= 0.02
    density = amounts @ np.array(stains.vectors) + rng.normal(0, 0.004, (count, 3))
    pixels = 255 * 10 ** -np.maximum(density, 0)
    return np.concatenate([pixels, np.full((count, 3), 250.0), np.full((200, 3), 5.0)]).astype(np.uint8)


@pytest.mark.parametrize("usual", [H_E, H_DAB])
@pytest.mark.parametrize("seed", range(3))
def test_vectors_that_were_mixed_are_found_again(usual: Stains, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = [np.array(v) + rng.normal(0, 0.06, 3) for v in usual.vectors]
    own = Stains(usual.names, tuple(tuple((v / np.linalg.norm(v)).tolist()) for v in mixed))  # type: ignore[arg-type]
    found = estimated(usual, tissue(own, seed=seed))
    for vector, true, default in zip(found.vectors, own.vectors, usual.vectors, strict=True):
        assert angle(vector, true) < 4
        assert angle(vector, true) < max(4, angle(default, true))
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert found.names == usual.names
    assert estimated(usual, tissue(own, seed=seed)) == found


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.full((5000, 3), 255, np.uint8), "only 0 stained pixels"),
        (
            np.tile(np.array([[200, 120, 160], [201, 120, 160]], np.uint8), (5000, 1)),
            "degrees apart|far from",
        ),
        (np.tile(np.array([[90, 200, 90], [200, 90, 90]], np.uint8), (5000, 1)), "far from usual"),
    ],
)
def test_where_nothing_can_be_estimated_the_default_stays_with_a_warning(
    pixels: NDArray[np.uint8], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    import re

    with caplog.at_level(logging.WARNING, logger="wsiseg"):
        assert estimated(H_E, pixels) == H_E
    assert re.search(why, caplog.text)


def test_brown_tissue_taken_for_eosin_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="wsiseg"):
        estimated(H_E, tissue(H_DAB))
    assert "looks like DAB" in caplog.text


def test_what_qupath_writes_is_read(tmp_path: Path) -> None:
    toml = "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in QUPATH.items())
    (tmp_path / "a.toml").write_text(toml)
    (tmp_path / "a.json").write_text(json.dumps({**QUPATH, "Values 2": [0.26917, 0.56824, 0.77759]}))
    for text in (json.dumps(QUPATH), str(tmp_path / "a.toml"), str(tmp_path / "a.json")):
        assert read_stains(text).stains == H_DAB
        assert not read_stains(text).estimate
    assert read_stains("h-e").stains == H_E
    assert read_stains("estimate-h-dab") == read_stains("estimate-h-dab")
    assert read_stains("estimate").estimate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h&e", r"--stains 'h&e': give estimate, estimate-h-dab, h-e, h-dab, a \.json"),
        ("0.65,0.70,0.29,0.2,0.8", "has 5 numbers; six are needed, three for each"),
        ("0.65,0.70,nan,0.2,0.8,0.5", "give estimate"),
        ("0.65,0.70,0.29,1.3,1.4,0.58", "parallel"),
        ("0,0,0,0.2,0.8,0.5", "is no optical density"),
        ("0.65,0.70,-0.29,0.2,0.8,0.5", "is no optical density"),
        ("nothing.json", "nothing.json: cannot be read"),
        ("{", "cannot be understood"),
        ('{"Stain 1": "Hematoxylin"}', "has no 'Values 1'"),
        (
            json.dumps({**QUPATH, "Values 1": "0.65 0.70"}),
            "'Values 1' is '0.65 0.70'; three numbers are expected",
        ),
        (json.dumps({**QUPATH, "Stain 2": "Hematoxylin"}), "give two names"),
        (json.dumps({**QUPATH, "Background": "0 255 255"}), "each must be 1 to 255"),
    ],
)
def test_what_is_no_pair_of_stains_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_stains(text)
