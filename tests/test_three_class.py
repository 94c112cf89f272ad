from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.measure import label as label_pieces
from slides_made import discs

from wsiseg import metrics
from wsiseg.augment import Augmentation
from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.recipes import three_class
from wsiseg.recipes.three_class import Settings, group, labelled_squares, targets
from wsiseg.samples import Sample
from wsiseg.stages import Schedule, TrainingImage
from wsiseg.train import train


def sample(labels, name="drawn", roi=None):
    return Sample(name, np.zeros((*labels.shape, 3), np.uint8), 0.25, np.zeros((0, 2)), roi, labels)


def test_boundary_is_two_pixels_from_the_edge_inwards_and_between_neighbours():
    labels = np.zeros((9, 20), np.int32)
    labels[1:8, 1:10], labels[1:8, 10:19] = 1, 2
    taught = targets(Settings(border=2), sample(labels), {}, {})[0]
    assert (taught == 2).sum() == 2 * (3 * 5)
    assert (taught[3:6, 3:8] == 2).all()
    assert (taught[3:6, 12:17] == 2).all()
    assert (taught[4, 8:12] == 3).all()
    assert ((taught == 1) == (labels == 0)).all()


def test_a_nucleus_goes_on_beyond_the_image():
    taught = targets(Settings(border=2), sample(np.ones((8, 8), np.int32)), {}, {})[0]
    assert (taught == 2).all()


def test_a_tenth_of_the_squares_is_taught_and_belongs_to_every_larger_share():
    labels = np.zeros((1000, 1000), np.int32)
    known = {s: labelled_squares(sample(labels), share=s, patch=250, draw=0) for s in (0.1, 0.5, 1.0)}
    assert [round(k.mean(), 2) for k in known.values()] == [0.12, 0.5, 1.0]
    assert (known[0.1] <= known[0.5]).all()
    other = labelled_squares(sample(labels, "other"), share=0.5, patch=250, draw=0)
    assert (other != known[0.5]).any()
    taught = targets(Settings(share=0.1), sample(labels), {}, {})[0]
    assert ((taught > 0) == known[0.1]).all()


def test_nothing_is_taught_outside_the_region_of_interest():
    roi = np.zeros((8, 8), bool)
    roi[:4] = True
    taught = targets(Settings(), sample(np.ones((8, 8), np.int32), roi=roi), {}, {})[0]
    assert ((taught > 0) == roi).all()


def test_points_do_not_do():
    with pytest.raises(DataError, match="drawn: has no labels"):
        targets(Settings(), replace(sample(np.zeros((8, 8), np.int32)), labels=None), {}, {})


def test_touching_nuclei_come_apart_where_the_boundary_is():
    prob, boundary = np.zeros((1, 30, 44), np.float32), np.zeros((30, 44), np.float32)
    prob[0, 5:25, 2:42] = 0.9
    boundary[5:25, 2:42] = 0.8
    boundary[7:23, 4:20], boundary[7:23, 24:40] = 0.1, 0.1
    tile = Maps(prob, boundary=boundary)
    frame = Rect(0, 0, 30, 44)
    labels, embedding = group(tile, Settings(), frame)
    assert embedding is None
    assert np.bincount(labels.ravel())[1:].tolist() == [400, 400]
    assert three_class.components(tile, threshold=0.5, min_area=30).max() == 1
    assert group(tile, Settings(), frame, threshold=0.95)[0].max() == 0
    halves = [
        group(tile.crop((slice(0, 30), part)), Settings(), frame)[0].max()
        for part in (slice(22), slice(22, 44))
    ]
    assert halves == [1, 1]
    unsure = replace(tile, boundary=np.where(boundary > 0.5, 0.4, boundary).astype(np.float32))
    counts = [group(unsure, Settings(boundary_weight=weight), frame)[0].max() for weight in (1, 4)]
    assert counts == [1, 2]


def test_a_batch_without_labels_teaches_nothing():
    stage = three_class.stages(Settings(width=0.25))[0]
    loss = stage.loss(
        stage.network(),
        torch.rand(2, 3, 32, 32),
        torch.zeros(2, 1, 32, 32, dtype=torch.int64),
        np.random.default_rng(0),
    )
    assert loss == 0


def test_trained_on_half_of_the_squares_it_finds_the_nuclei_of_another_image(tmp_path):
    samples = []
    for seed in range(3):
        image, centres = discs((192, 192), seed=seed)
        labels = label_pieces(image[..., 0] < 150).astype(np.int32)
        samples.append(Sample(str(seed), image, 0.25, centres, None, labels))
    settings = Settings(
        width=0.25,
        share=0.5,
        patch=64,
        init="self-supervised",
        encoder=Schedule(crops=16, batch=4, size=64),
        unet=Schedule(crops=400, batch=4, size=96, learning_rate=3e-3, average=0.9),
    )
    plain = replace(Augmentation(), no_eosin=0.0, immunostain=0.0, deposits=0.0, debris=0.0)
    taught = [TrainingImage(s, {}) for s in samples[:2]]
    networks = train(three_class.stages(settings), taught, tmp_path, augmentation=plain)
    assert set(networks) == {"encoder", "unet"}
    found = three_class.stages(settings)[-1].nuclei(networks, samples[2].image)
    assert metrics.aji(samples[2].labels, found) > 0.5
