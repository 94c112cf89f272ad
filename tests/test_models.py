import json

import numpy as np
import pytest
import torch

from wsiseg.errors import DeviceError, ModelError
from wsiseg.geometry import Rect
from wsiseg.models import ModelRef, describe, find_model
from wsiseg.predict import check_device, load, save_model
from wsiseg.recipes import spn_ien

SETTINGS = {"width": 0.125, "threshold": 0.5}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    networks = {n: build() for n, build in spn_ien.networks(spn_ien.Settings(**SETTINGS)).items()}
    card = {
        "name": "tiny",
        "recipe": "spn_ien",
        "mpp": 0.25,
        "halo": 128,
        "settings": SETTINGS,
        "class_names": ["Nucleus"],
        "class_colors": [[200, 60, 60]],
        "about": {"licence": "none"},
    }
    save_model(networks, tmp_path / "tiny", card)
    return tmp_path / "tiny"


def test_a_saved_model_predicts_what_its_networks_say(folder):
    model = load(ModelRef("spn_ien", str(folder)))
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    maps = model.predict(images)
    assert len(maps) == 2
    assert maps[0].prob.shape == (1, 64, 96)
    assert maps[0].embedding.shape == (16, 64, 96)
    assert maps[0].embedding.dtype == np.float16
    assert np.abs(maps[0].embedding[:2]).max() <= 6
    labels, embedding = model.group(maps[0], Rect(0, 0, 64, 96), threshold=0.0, min_area=1)
    assert labels.shape == (64, 96)
    assert len(embedding) == labels.max() == len(np.unique(labels[labels > 0]))


def test_whole_images_of_any_size(folder):
    model = load(ModelRef("spn_ien", str(folder)))
    image = np.random.default_rng(0).integers(0, 255, (70, 45, 3), dtype=np.uint8)
    maps, inside = model.predict_whole(image)
    assert maps.prob[0][inside].shape == (70, 45)
    assert model.segment(image).shape == (70, 45)


def test_the_hash_changes_with_weights_and_settings_only(folder):
    card = json.loads((folder / "model.json").read_text())
    before = describe(folder).hash
    for key, value in (("about", {"licence": "other"}), ("name", "other")):
        (folder / "model.json").write_text(json.dumps({**card, key: value}))
        assert describe(folder).hash == before
    for key, value in (("settings", {"width": 0.125, "threshold": 0.4}), ("mpp", 0.5)):
        (folder / "model.json").write_text(json.dumps({**card, key: value}))
        assert describe(folder).hash != before


def test_damaged_weights_are_refused(folder):
    weights = folder / "ien.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    load.cache_clear()
    with pytest.raises(ModelError, match=r"ien\.safetensors: damaged"):
        load(ModelRef("spn_ien", str(folder)))


def test_what_is_no_model_is_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="no such model"):
        find_model(tmp_path / "absent")
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match=r"folder with model\.json"):
        find_model(tmp_path / "other")
    (tmp_path / "other" / "model.json").write_text('{"format": "something else"}')
    with pytest.raises(ModelError, match="format 'something else'"):
        describe(tmp_path / "other")
    (tmp_path / "other" / "model.json").write_text("not json")
    with pytest.raises(ModelError, match="damaged"):
        describe(tmp_path / "other")
    (folder / "spn.safetensors").unlink()
    with pytest.raises(ModelError, match="weights spn"):
        describe(folder)


def test_devices():
    assert check_device("cpu") == "cpu"
    assert check_device("auto") in {"cpu", "cuda"}
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        check_device("tpu")
    with pytest.raises(DeviceError, match="CUDA devices"):
        check_device(f"cuda:{torch.cuda.device_count()}")
