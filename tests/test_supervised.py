from dataclasses import replace

import numpy as np
import pytest
import torch
from slides_made import sample_of_discs

from wsiseg.augment import Augmentation
from wsiseg.config import Config
from wsiseg.errors import DataError, ModelError
from wsiseg.predict import load_networks, save_model
from wsiseg.recipes import multi_task, spn_ien, supervised
from wsiseg.recipes.supervised import Settings, instance_targets, semantic_targets
from wsiseg.samples import Sample
from wsiseg.stages import Schedule, TrainingImage
from wsiseg.train import train

LABELS = np.array([[0, 3, 3], [5, 0, 0]], np.int32)


def sample(labels=LABELS, roi=None):
    return Sample("drawn", np.zeros((2, 3, 3), np.uint8), 0.25, np.zeros((0, 2)), roi, labels)


def test_every_pixel_of_the_region_is_taught():
    assert semantic_targets(sample(), {}, {}).tolist() == [[[1, 2, 2], [2, 1, 1]]]
    roi = np.array([[True, True, False], [False, False, False]])
    assert semantic_targets(sample(roi=roi), {}, {}).tolist() == [[[1, 2, 0], [0, 0, 0]]]


def test_instances_are_the_masks_and_background_one_more_where_the_embedding_holds_it():
    assert instance_targets(Settings(), sample(), {}, {}).tolist() == [LABELS.tolist()]
    with_background = instance_targets(Settings(coordinates="input"), sample(), {}, {})
    assert with_background.tolist() == [[[6, 3, 3], [5, 6, 6]]]
    assert LABELS.max() == 5


def test_points_do_not_do():
    with pytest.raises(DataError, match="drawn: has no labels"):
        semantic_targets(sample(labels=None), {}, {})


def test_the_loss_takes_one_map():
    stage = supervised.stages(Settings(width=0.25))[0]
    images, targets = torch.zeros(2, 3, 32, 32), torch.full((2, 1, 32, 32), 2)
    loss = stage.loss(stage.network().eval(), images, targets, np.random.default_rng(0))
    assert torch.isfinite(loss)


def test_it_may_start_from_what_points_taught(tmp_path):
    schedule = Schedule(crops=2, batch=2, size=64)
    settings = Settings(width=0.25, spn=schedule, ien=schedule)
    image = TrainingImage(sample_of_discs(), {"patch": 20})
    first = train(spn_ien.stages(settings), [image], tmp_path / "points", augmentation=Augmentation(), seed=1)
    card = Config(name="points", recipe="spn_ien", settings=settings).card()
    save_model(first, tmp_path / "model", card)
    start = load_networks(str(tmp_path / "model"), "supervised", settings)
    untaught = replace(settings, spn=replace(schedule, crops=0), ien=replace(schedule, crops=0))
    then = train(
        supervised.stages(untaught), [image], tmp_path / "masks", augmentation=Augmentation(), start=start
    )
    for name in ("spn", "ien"):
        torch.testing.assert_close(then[name].conv1.weight, start[name].conv1.weight)
    with pytest.raises(ModelError, match=r"whose networks are spn, ien; those .* are unet"):
        load_networks(str(tmp_path / "model"), "multi_task", multi_task.Settings())
