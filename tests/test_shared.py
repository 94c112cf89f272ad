"""SPN and IEN as one network of two heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slides_made import sample_of_discs

from wsiseg.augment import Augmentation
from wsiseg.config import Config, tuning_config
from wsiseg.errors import ConfigError, ModelError
from wsiseg.geometry import Rect
from wsiseg.models import ModelRef
from wsiseg.predict import load, load_networks, save_model
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS
from wsiseg.recipes import spn_ien, supervised
from wsiseg.recipes._spn_ien_losses import both_losses, embedding_loss, proposal_loss
from wsiseg.recipes.spn_ien import Settings
from wsiseg.stages import Schedule, TrainingImage
from wsiseg.train import train

SCHEDULE = Schedule(crops=8, batch=4, size=64)
PLAIN = Augmentation(zoom=(0.9, 1.1), deposits=0, debris=0, blur=0, sharpen=0, noise=0, no_eosin=0)
SETTINGS = Settings(width=0.25, shared=True, spn=SCHEDULE, ien=SCHEDULE)


@pytest.fixture(scope="module")
def image():
    return TrainingImage(sample_of_discs(), {"patch": 20})


@pytest.fixture(scope="module")
def model(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    settings = replace(
        SETTINGS,
        spn=Schedule(crops=160, batch=4, size=96, learning_rate=3e-3, average=0.9),
        ien=Schedule(crops=160, batch=4, size=96, learning_rate=3e-3, average=0.9),
    )
    networks = train(spn_ien.stages(settings), [image], folder, augmentation=PLAIN)
    card = Config(name="shared", recipe="spn_ien", settings=settings).card()
    save_model({n: networks[n] for n in spn_ien.networks(settings)}, folder / "model", card)
    return folder / "model"


def test_one_network_finds_what_two_would(model, image):
    assert sorted(path.name for path in model.iterdir()) == ["ien.safetensors", "model.json"]
    loaded = load(ModelRef("spn_ien", str(model)))
    (maps,) = loaded.predict(image.sample.image[None])
    assert maps.prob.shape == (1, 160, 160)
    assert maps.embedding.shape == (16, 160, 160)
    at = np.floor(image.sample.points).astype(int)
    inside, outside = maps.prob[0][tuple(at.T)].mean(), maps.prob[0][:12].mean()
    assert inside > outside + 0.2
    found, _ = loaded.group(maps, Rect(0, 0, 160, 160), threshold=float(inside + outside) / 2, min_area=20)
    assert (found[tuple(at.T)] > 0).mean() > 0.8


@pytest.mark.parametrize("refresh", [None, 0.3])
def test_its_targets_are_those_of_both(image, refresh):
    settings = replace(SETTINGS, refresh=refresh)
    stages = spn_ien.stages(settings)
    networks = {stage.name: stage.network().eval() for stage in stages}
    apart = spn_ien.stages(replace(settings, shared=False))
    both = stages[-1].targets(image.sample, image.options, networks)
    assert both.shape == (3, 160, 160)
    assert stages[-1].background == BACKGROUND
    alone = apart[-1].targets(image.sample, image.options, networks)
    np.testing.assert_array_equal(np.maximum(both[-1] - 1, 0), alone[0])
    if refresh is None:
        np.testing.assert_array_equal(both[:2], apart[0].targets(image.sample, image.options, networks))
    assert set(np.unique(both[1])) <= {0, BACKGROUND, NUCLEUS}


def test_its_loss_is_the_sum_of_both():
    rng = np.random.default_rng(0)
    outputs = torch.from_numpy(rng.normal(size=(2, 17, 16, 16))).float()
    semantic = torch.from_numpy(rng.integers(0, 3, (2, 2, 16, 16)))
    numbers = torch.from_numpy(rng.integers(0, 4, (2, 1, 16, 16)))
    shifted = torch.where(numbers > 0, numbers + 1, BACKGROUND)  # none, as debris leaves it
    found = both_losses(SETTINGS, lambda _: outputs, outputs, torch.cat([semantic, shifted], 1), rng)
    expected = proposal_loss(SETTINGS, outputs[:, 0], semantic) + embedding_loss(
        SETTINGS, outputs[:, 1:], numbers[:, 0]
    )
    torch.testing.assert_close(found, expected)


def test_full_masks_teach_it_as_well(image, tmp_path):
    labels = np.zeros((160, 160), np.int32)
    labels[20:40, 20:40] = 1
    sample = replace(image.sample, labels=labels)
    networks = train(
        supervised.stages(SETTINGS), [TrainingImage(sample, {})], tmp_path, augmentation=Augmentation()
    )
    assert networks["ien"].head.out_channels == 17


def test_what_it_cannot_do_is_said(model):
    with pytest.raises(ValueError, match="coordinates 'output'"):
        Settings(shared=True, coordinates="patch")
    with pytest.raises(ConfigError, match="cannot be corrected"):
        tuning_config(str(model), crops=8)


def test_it_may_start_from_a_model_of_two_networks(image, tmp_path):
    apart = replace(SETTINGS, shared=False)
    networks = train(spn_ien.stages(apart), [image], tmp_path / "two", augmentation=PLAIN, seed=1, steps=1)
    card = Config(name="two", recipe="spn_ien", settings=apart).card()
    save_model(networks, tmp_path / "model", card)
    start = load_networks(str(tmp_path / "model"), "spn_ien", SETTINGS)
    assert sorted(start) == ["ien", "spn"]
    untaught = replace(SETTINGS, spn=replace(SCHEDULE, crops=0))
    both = train(
        spn_ien.stages(untaught), [image], tmp_path / "one", augmentation=PLAIN, start=start, steps=0
    )
    torch.testing.assert_close(both["spn"].head.weight, start["spn"].head.weight)
    torch.testing.assert_close(both["ien"].conv1.weight, start["ien"].conv1.weight)
    with pytest.raises(ModelError, match="ien is of another size"):
        load_networks(str(tmp_path / "model"), "spn_ien", replace(SETTINGS, width=0.5))
