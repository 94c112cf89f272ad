from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg import plugins, recipes
from wsiseg.config import data_folder, read_config, read_training_images
from wsiseg.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[1] / "configs"


TRAININGS = sorted(path for path in CONFIGS.glob("*.toml") if path.name != "slurm.toml")
"""All but the options of an executor, which tests/test_execute.py reads."""


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.stem)
def test_every_configuration_that_ships_is_valid(path):
    config = read_config(path)
    stages = plugins.load(recipes, config.recipe).stages(config.settings)
    assert all(stage.schedule.steps > 0 for stage in stages)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("depth = 18", "dept = 18", "dept"),
        ("depth = 18", 'depth = "deep"', "depth"),
        ("mpp = 0.25", "mpp = 25", "mpp.*less than or equal to 5"),
        ('recipe = "spn_ien"', 'recipe = "magic"', "choose one of.*spn_ien"),
        ('name = "spn-ien-small"', "name = ", "TOML"),
        ("patch = 60", "path = 60", r"data\.0\.options\.path: no option .* choose one of .*patch"),
        ("patch = 80", "patch = 0", r"data\.1\.options\.patch: 0; allowed are 1 to"),
        ("patch = 80", "patch = nan", r"patch: nan; allowed are 1 to"),
        (
            'recipe = "spn_ien"',
            'recipe = "spn_ien"\noptions = { trase = 12 }',
            r"toml: options\.trase: no option",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, before, after, message):
    text = (CONFIGS / "spn-ien-small.toml").read_text()
    assert before in text
    (tmp_path / "c.toml").write_text(text.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "c.toml")


def test_images_of_another_pixel_size_are_brought_to_the_models(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "discs" / part).mkdir(parents=True)
    labels = np.zeros((40, 60), np.uint16)
    labels[8:16, 20:32] = 1
    Image.fromarray(np.repeat((255 - 200 * labels).astype(np.uint8)[..., None], 3, 2)).save(
        tmp_path / "discs" / "images" / "a.png"
    )
    Image.fromarray(labels).save(tmp_path / "discs" / "labels" / "a.png")
    (tmp_path / "c.toml").write_text(
        'name = "n"\nrecipe = "spn_ien"\nmpp = 0.5\n[[data]]\nfolder = "discs"\nsplit = "all"\nmpp = 0.25\npoints_from_masks = true'
    )
    (image,) = read_training_images(read_config(tmp_path / "c.toml"), tmp_path)
    assert image.sample.mpp == 0.5
    assert image.sample.image.shape == (20, 30, 3)
    np.testing.assert_array_equal(image.sample.points, [[6, 13]])


def test_the_data_folder_is_given_or_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("WSISEG_DATA", raising=False)
    with pytest.raises(DataError, match="--data"):
        data_folder(None)
    monkeypatch.setenv("WSISEG_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    with pytest.raises(DataError, match="no such folder"):
        data_folder(tmp_path / "absent")
