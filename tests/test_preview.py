"""A slide, what was found in it, and the picture of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsiseg.errors import ConfigError, OutputError
from wsiseg.geometry import Rect
from wsiseg.preview import draw_slide
from wsiseg.slides.slide import SlideRef


@pytest.fixture
def slide(tmp_path: Path) -> SlideRef:
    """A pale slide of 400 x 300 pixels."""
    path = tmp_path / "slide.png"
    Image.fromarray(np.full((300, 400, 3), 230, np.uint8)).save(path)
    return SlideRef(str(path), mpp=0.5)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """One nucleus: y 120 to 160, x 200 to 240."""
    ring = [[200, 120], [240, 120], [240, 160], [200, 160], [200, 120]]
    member = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": "Nucleus", "color": [200, 0, 0]},
        },
    }
    path = tmp_path / "found.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [member]}))
    return path


def red(path: Path) -> NDArray[np.bool_]:
    """Where a picture is red."""
    picture = np.asarray(Image.open(path)).astype(int)
    return (picture[..., 0] > 150) & (picture[..., 1] < 100)


@pytest.mark.parametrize(("mpp", "zoom"), [(None, 1.0), (1.0, 0.5), (0.25, 2.0)])
def test_an_outline_lies_where_the_nucleus_is(
    slide: SlideRef, result: Path, tmp_path: Path, mpp: float | None, zoom: float
) -> None:
    out = tmp_path / "out.png"
    region = Rect(100, 150, 200, 350)
    assert draw_slide(slide, result, out, region=region, mpp=mpp, width=2) == (100 * zoom, 200 * zoom)
    y, x = np.nonzero(red(out))
    assert [y.min(), y.max() + 1] == pytest.approx([20 * zoom, 60 * zoom], abs=1.5)
    assert [x.min(), x.max() + 1] == pytest.approx([50 * zoom, 90 * zoom], abs=1.5)


def test_the_whole_slide_the_borders_of_tiles_and_one_colour(
    slide: SlideRef, result: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    assert draw_slide(slide, result, out, color=(0, 0, 0), tile_um=50) == (300, 400)
    picture = np.asarray(Image.open(out)).astype(int)
    green = picture[..., 1] > picture[..., 0] + 40
    assert np.flatnonzero(green[10]).max() in (299, 300)
    assert not red(out).any()


def test_an_enormous_picture_is_refused(
    slide: SlideRef, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsiseg.preview.MAX_PIXELS", 100_000)
    with pytest.raises(ConfigError, match="400 x 300 pixels; 1 to 100000 are allowed"):
        draw_slide(slide, result, tmp_path / "out.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mpp": 0.01}, "mpp 0.01 is not between"),
        ({"mpp": float("nan")}, "mpp nan is not between"),
        ({"width": -1}, "width -1 is not between"),
        ({"tile_um": 0}, "tile size in microns 0 is not between"),
        ({"region": Rect(5, 5, 5, 5)}, "0 x 0 at x 5, y 5 does not meet the slide, 400 x 300 pixels"),
        ({"region": Rect(900, 900, 950, 950)}, "50 x 50 at x 900, y 900 does not meet the slide"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    slide: SlideRef, result: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_slide(slide, result, tmp_path / "out.png", **options)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("name", ["missing/out.png", "out.xyz", "out"])
def test_a_picture_that_cannot_be_written(slide: SlideRef, result: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot be written"):
        draw_slide(slide, result, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before
