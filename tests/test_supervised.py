import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.recipes import supervised
from wsiseg.recipes.supervised import Settings, instance_targets, semantic_targets
from wsiseg.samples import Sample

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
    import torch

    stage = supervised.stages(Settings(width=0.25))[0]
    images, targets = torch.zeros(2, 3, 32, 32), torch.full((2, 1, 32, 32), 2)
    loss = stage.loss(stage.network().eval(), images, targets, np.random.default_rng(0))
    assert torch.isfinite(loss)
