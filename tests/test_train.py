from dataclasses import replace

import numpy as np
import pytest
import torch

from wsiseg.augment import Augmentation
from wsiseg.errors import ConfigError
from wsiseg.recipes import spn_ien
from wsiseg.samples import Sample
from wsiseg.stages import Schedule, TrainingImage
from wsiseg.train import train

SCHEDULE = Schedule(crops=24, batch=2, size=64)
SETTINGS = spn_ien.Settings(width=0.25, spn=SCHEDULE, ien=SCHEDULE)


@pytest.fixture(scope="module")
def images():
    """Dark discs on pink, with their centres."""
    rng = np.random.default_rng(0)
    points = np.array([[y, x] for y in range(24, 140, 32) for x in range(24, 140, 32)]) + 0.5
    y, x = np.mgrid[:160, :160] + 0.5
    inside = (np.hypot(y[None] - points[:, :1, None], x[None] - points[:, 1:, None]) < 9).any(0)
    image = np.where(inside[..., None], [90, 60, 140], [225, 180, 215]) + rng.normal(0, 4, (160, 160, 3))
    return [TrainingImage(Sample("discs", image.clip(0, 255).astype(np.uint8), 0.25, points), {})]


def run(images, folder, **options):
    return train(spn_ien.stages(SETTINGS), images, folder, augmentation=Augmentation(), **options)


def weights(networks):
    return {f"{n}.{k}": w for n, net in networks.items() for k, w in net.state_dict().items()}


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(images, tmp_path, monkeypatch):
    whole = weights(run(images, tmp_path / "whole"))
    monkeypatch.setattr("wsiseg.train.CHECKPOINT_SECONDS", -1.0)

    def stop(stage, step, steps, loss):
        if stage == "ien" and step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", progress=stop)
    assert not (tmp_path / "cut" / "ien.pt").exists()
    resumed = weights(run(images, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(images, tmp_path):
    first, second, other = (
        weights(run(images, tmp_path / str(i), seed=seed, steps=2)) for i, seed in enumerate((0, 0, 1))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["spn.head.weight"], other["spn.head.weight"])


def test_it_learns_dark_discs(images, tmp_path):
    settings = replace(SETTINGS, spn=Schedule(crops=160, batch=4, size=96, learning_rate=3e-3, average=0.9))
    stage = spn_ien.stages(settings)[:1]
    plain = Augmentation(zoom=(0.9, 1.1), deposits=0, debris=0, blur=0, sharpen=0, noise=0, no_eosin=0)
    networks = train(stage, images, tmp_path, augmentation=plain)
    sample = images[0].sample
    probability = spn_ien.semantic_probability(networks["spn"], sample.image)
    at = np.floor(sample.points).astype(int)
    assert probability[at[:, 0], at[:, 1]].mean() > 0.6
    assert probability[8, ::7].mean() < 0.4


@pytest.mark.parametrize("coordinates", ["input", "patch"])
def test_other_coordinates_take_a_step(images, tmp_path, coordinates):
    settings = replace(SETTINGS, coordinates=coordinates)
    networks = train(spn_ien.stages(settings), images, tmp_path, augmentation=Augmentation(), steps=1)
    assert all(torch.isfinite(w).all() for w in weights(networks).values())


def test_no_points_is_an_error(images, tmp_path):
    empty = replace(images[0], sample=replace(images[0].sample, points=np.zeros((0, 2))))
    with pytest.raises(ConfigError, match="no point"):
        run([empty], tmp_path)
