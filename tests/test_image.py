"""`segment_image`: the nuclei of an image in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from slides_made import discs, tiny_model

import wsiseg
from wsiseg import nuclei
from wsiseg.errors import ConfigError, DeviceError, ModelError
from wsiseg.image import painted, segment_image
from wsiseg.nuclei import NucleusTable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def at(labels: NDArray[np.int32], centres: NDArray[np.float64]) -> NDArray[np.int32]:
    """Labels at the pixels that hold `centres`."""
    y, x = centres.astype(int).T
    found: NDArray[np.int32] = labels[y, x]
    return found


@pytest.mark.parametrize("step", [1, 2])
def test_every_disc_has_a_label_at_the_size_of_the_image(step: int, model: Path) -> None:
    picture, centres = discs((301, 260))
    labels = segment_image(picture[::step, ::step].copy(), mpp=0.25 * step, model=model)
    assert labels.shape == picture[::step, ::step].shape[:2]
    assert labels.dtype == np.int32
    assert sorted(at(labels, centres / step)) == list(range(1, len(centres) + 1))
    assert np.array_equal(np.unique(labels), np.arange(len(centres) + 1))


def test_labels_cover_the_discs(model: Path) -> None:
    picture, _ = discs((300, 260))
    dark = picture[..., 0] < 150
    found = segment_image(picture, mpp=0.25, model=model) > 0
    assert (dark & found).sum() / (dark | found).sum() > 0.8


def test_tiles_are_not_seen(model: Path) -> None:
    picture, centres = discs((330, 330))
    whole = segment_image(picture, mpp=0.25, model=model) > 0
    cut = segment_image(picture, mpp=0.25, model=model, tile_size=128)
    assert sorted(at(cut, centres)) == list(range(1, len(centres) + 1))
    assert (whole == (cut > 0)).mean() > 0.999


def test_a_nucleus_at_the_border_is_found(model: Path) -> None:
    picture, centres = discs((300, 300))
    y, x = (int(v) for v in centres[0])
    for cut in (-2, 0, 3):
        labels = segment_image(picture[y + cut :, x + 2 :].copy(), mpp=0.25, model=model)
        dark = picture[y + cut :, x + 2 :, 0] < 150
        assert labels[0, 0] > 0
        assert abs((labels == labels[0, 0]).sum() - dark[:12, :12].sum()) < 12


def test_glass_has_no_labels(model: Path) -> None:
    assert segment_image(np.full((70, 90, 3), 255, np.uint8), mpp=0.5, model=model).max() == 0


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (np.zeros((64, 64), np.uint8), {}, ConfigError, r"\(H, W, 3\) uint8 is expected"),
        (np.zeros((64, 64, 3)), {}, ConfigError, "float64"),
        (np.zeros((0, 64, 3), np.uint8), {}, ConfigError, r"\(0, 64, 3\)"),
        (np.zeros((64, 64, 3), np.uint8), {"mpp": 50.0}, ConfigError, "mpp 50 is not between 0.05 and 5"),
        (np.zeros((64, 64, 3), np.uint8), {"tile_size": 100}, ConfigError, "64 and 128"),
        (np.zeros((64, 64, 3), np.uint8), {"model": "none"}, ModelError, "no such model"),
        (np.zeros((64, 64, 3), np.uint8), {"device": "tpu"}, DeviceError, "tpu"),
    ],
)
def test_what_cannot_be_used_is_refused(
    image: NDArray[np.uint8], options: dict[str, object], error: type[Exception], message: str, model: Path
) -> None:
    with pytest.raises(error, match=message):
        segment_image(image, **{"mpp": 0.25, "model": model, **options})  # type: ignore[arg-type]


def test_painting_gives_shared_pixels_to_the_first_and_leaves_no_gap() -> None:
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float32)
    rings = [square * 4, square * 0.1 + 0.2, square * 4 + 2]  # the second holds no pixel's centre
    table = NucleusTable(
        mpp=0.25,
        centroid=np.zeros((3, 2)),
        area=np.ones(3),
        score=np.ones(3, np.float32),
        label=np.zeros(3, np.int32),
        tile=np.zeros(3, np.int32),
        vertices=np.concatenate(rings).astype(np.float32),
        offsets=np.array([0, 4, 8, 12]),
    )
    labels = painted(table, (8, 8), scale=1.0)
    assert labels[:4, :4].tolist() == [[1] * 4] * 4
    assert (labels == 2).sum() == 16 - 4
    assert labels.max() == 2
    assert painted(nuclei.empty(0.25), (2, 2), scale=1.0).max() == 0


def test_the_package_gives_it() -> None:
    assert wsiseg.segment_image is segment_image
