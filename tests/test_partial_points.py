import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from slides_made import sample_of_discs

from wsiseg.augment import Augmentation
from wsiseg.dense_crf import pairwise_energy
from wsiseg.geometry import Rect
from wsiseg.losses import masked_squared_error
from wsiseg.maps import Maps
from wsiseg.models import ModelRef
from wsiseg.predict import load, save_model
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS
from wsiseg.recipes import partial_points
from wsiseg.recipes._gaussian_masks import (
    LEVELS,
    clicked,
    drawn,
    extended_mask,
    from_levels,
    to_levels,
    with_background,
)
from wsiseg.recipes._spots import discs, spots
from wsiseg.recipes.partial_points import Settings
from wsiseg.stages import Schedule, TrainingImage
from wsiseg.train import train

SCHEDULE = Schedule(crops=2, batch=2, size=64)
SETTINGS = Settings(
    width=0.25, rounds=2, detector=SCHEDULE, segmentation=SCHEDULE, refinement=SCHEDULE, share=0.25
)


class Dark(torch.nn.Module):
    """A detector that takes every dark pixel for a nucleus, and the rest for none."""

    def __init__(self, steepness=40.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(steepness))

    def forward(self, x):
        return self.weight * (0.55 - x[:, 1:2])


def test_extended_mask_by_hand():
    """Along a row through the point: 3, 4 and 5 pixels away, with r1 = 4, r2 = 6 and a Gaussian of 2."""
    mask = extended_mask(np.array([[0.5, 0.5]]), (4, 8), inner=4, outer=6, sigma=2)
    expected = [1, math.exp(-1 / 8), math.exp(-4 / 8), math.exp(-9 / 8), 0, 0, -1, -1]
    assert mask[0].tolist() == pytest.approx(expected)
    assert mask[3, 1] == pytest.approx(math.exp(-10 / 8))
    assert mask[3, 3] == 0.0  # sqrt(18) away
    assert mask[3, 6] == -1.0  # sqrt(45) away


def test_of_two_points_the_closer_counts():
    mask = extended_mask(np.array([[0.5, 0.5], [0.5, 6.5]]), (1, 8), inner=4, outer=6, sigma=2)
    assert mask[0, 5] == pytest.approx(math.exp(-1 / 8))
    assert (mask >= 0).all()


def test_without_a_point_nothing_is_known():
    assert (extended_mask(np.zeros((0, 2)), (3, 3), inner=4, outer=6, sigma=2) == -1).all()


def test_a_plain_mask_takes_the_rest_for_background():
    sample = sample_of_discs()
    extended = partial_points.gaussian_mask(SETTINGS, sample)
    plain = partial_points.gaussian_mask(replace(SETTINGS, mask="plain"), sample)
    assert (extended == -1).any()
    assert ((plain == 0) == (extended <= 0)).all()
    assert (plain[extended > 0] == extended[extended > 0]).all()


def test_background_propagates_by_hand():
    """Where nothing was known: below 0.1, and above 0.7 in pieces of more than 3 pixels."""
    mask = np.array([[1.0, 0.0, -1, -1, -1, -1, -1, -1, -1, -1, -1]])
    prob = np.array([[0.0, 0.9, 0.05, 0.5, 0.9, 0.9, 0.9, 0.4, 0.8, 0.8, 0.8]])
    expected = [[1, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1]]
    assert with_background(mask, prob, low=0.1, high=0.7, large=3).tolist() == expected
    expected = [[1, 0, 0, -1, 0, 0, 0, -1, 0, 0, 0]]
    assert with_background(mask, prob, low=0.1, high=0.7, large=2).tolist() == expected


def test_a_round_adds_background_and_leaves_the_clicked_as_they_were():
    """The detector finds all discs: they stay unknown, and the tissue between becomes background."""
    sample = sample_of_discs()
    first = partial_points.detector_targets(SETTINGS, None, sample, {}, {})
    again = partial_points.detector_targets(SETTINGS, "before", sample, {}, {"before": Dark()})
    assert (again[first > 0] == first[first > 0]).all()
    assert (first == 0).mean() > 0.5
    assert (again == 0).mean() < 0.2
    y, x = np.floor(sample.points).astype(int).T
    assert (again[0, y, x] == 0).sum() == 12  # of the sixteen discs a quarter is clicked
    large = replace(SETTINGS, inner=4.0)  # discs are larger than nuclei of 4 pixels: background as well
    again = partial_points.detector_targets(large, "before", sample, {}, {"before": Dark()})
    assert (again[0, y, x] == BACKGROUND).sum() == 12


def test_outside_the_region_nothing_is_taught():
    sample = sample_of_discs()
    roi = np.zeros((160, 160), bool)
    roi[:, :80] = True
    for before, trained in ((None, {}), ("before", {"before": Dark()})):
        targets = partial_points.detector_targets(SETTINGS, before, replace(sample, roi=roi), {}, trained)
        assert not targets[0, :, 80:].any()
        assert targets[0, :, :80].any()


def test_levels_keep_the_mask():
    mask = extended_mask(np.array([[20.0, 20.0]]), (40, 60), inner=11, outer=22, sigma=2.75)
    levels = to_levels(mask)
    assert levels.min() == 0
    assert levels.max() == LEVELS + 1
    again = from_levels(torch.from_numpy(levels)[None].long())[0].numpy()
    assert np.abs(again - mask).max() <= 0.6 / LEVELS
    assert ((again > 0) == (mask > 0)).all()
    assert ((again < 0) == (mask < 0)).all()


@pytest.mark.parametrize(("share", "count"), [(0.05, 10), (0.1, 20), (0.25, 50), (0.5, 100), (1.0, 200)])
def test_a_share_is_drawn_once_and_in_order(share, count):
    points = np.arange(400.0).reshape(200, 2)
    some = drawn(points, share, np.random.default_rng(7))
    assert len(some) == count
    assert (np.diff(some[:, 0]) > 0).all()
    assert set(some[:, 0]) <= set(points[:, 0])
    assert (some == drawn(points, share, np.random.default_rng(7))).all()
    other = drawn(points, share, np.random.default_rng(8))
    assert share == 1 or (some != other).any()


def test_few_points_leave_one_and_none_leave_none():
    rng = np.random.default_rng(0)
    assert len(drawn(np.zeros((3, 2)), 0.05, rng)) == 1
    assert drawn(np.zeros((0, 2)), 0.05, rng).shape == (0, 2)


def test_images_draw_by_themselves():
    """The same points for the same name and seed; others for another name, and for another seed."""
    sample = replace(sample_of_discs(), points=np.arange(400.0).reshape(200, 2))
    one = clicked(sample, 0.1, 0)
    assert (one == clicked(sample, 0.1, 0)).all()
    assert (one != clicked(replace(sample, name="another"), 0.1, 0)).any()
    assert (one != clicked(sample, 0.1, 1)).any()


def test_squared_error_by_hand():
    """Eq. 2: (10 * 0.5^2 + 1 * 0.2^2) / 2 known pixels; the third is not known."""
    mask, prob = torch.tensor([[[1.0, 0.0, -1.0]]]), torch.tensor([[[0.5, 0.2, 0.9]]])
    assert masked_squared_error(prob, mask).item() == pytest.approx((2.5 + 0.04) / 2)
    assert masked_squared_error(prob, torch.full_like(mask, -1)).item() == 0


def test_spots_are_centroids_of_pieces_of_the_right_size():
    probability = np.zeros((40, 40))
    probability[2:6, 10:15] = 0.4  # 20 pixels
    probability[20:23, 20:23] = 0.9  # 9
    probability[25:40, 25:40] = 0.9  # 225
    found = spots(probability, threshold=0.35, min_area=12, max_area=200)
    assert found.tolist() == [[4.0, 12.5]]
    assert len(spots(probability, threshold=0.5, min_area=5, max_area=300)) == 2
    assert spots(probability, threshold=0.95, min_area=1, max_area=300).shape == (0, 2)


def test_discs_hold_what_is_within_their_radius_and_do_not_meet():
    labels = discs(np.array([[10.5, 10.5], [10.5, 20.5]]), (20, 40), radius=8)
    assert labels[10, [2, 3, 15, 16, 27, 28]].tolist() == [0, 1, 1, 2, 2, 0]
    assert discs(np.zeros((0, 2)), (5, 5), radius=8).sum() == 0


def test_the_segmentation_learns_from_clicked_and_detected_nuclei():
    """Where the detector is blind the clicked nuclei are taught alone."""
    sample = sample_of_discs()
    sharp, blind = Dark(), Dark(0.0)
    settings = replace(SETTINGS, max_spot=400)
    assert len(partial_points.detect(settings, {"detector": sharp}, sample.image)) == 16
    y, x = np.floor(sample.points).astype(int).T
    options = {"colour_weight": 1.0, "sigma": 200.0}
    labels = partial_points.segmentation_targets(settings, sample, options, {"detector": sharp})
    assert (labels[:, y, x] == NUCLEUS).all()
    blind_settings = replace(settings, spot=0.6)
    labels = partial_points.segmentation_targets(blind_settings, sample, options, {"detector": blind})
    assert (labels[1, y, x] == NUCLEUS).sum() == 4


def test_alpha_weighs_voronoi_and_beta_the_pairs():
    network = torch.nn.Conv2d(3, 1, 1)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 2, 16, 16, dtype=torch.int64)
    targets[:, 0, :8], targets[:, 1, 8:] = NUCLEUS, BACKGROUND
    rng = np.random.default_rng(0)

    def loss(alpha, beta=0.0):
        settings = replace(SETTINGS, alpha=alpha)
        return partial_points.segmentation_loss(settings, beta, network, images, targets, rng).item()

    logits = network(images)[:, 0]
    cluster = torch.nn.functional.softplus(-logits[:, :8]).mean().item()
    voronoi = torch.nn.functional.softplus(logits[:, 8:]).mean().item()
    assert loss(0.0) == pytest.approx(cluster, rel=1e-5)
    assert loss(1.0) == pytest.approx(voronoi, rel=1e-5)
    assert loss(0.5) == pytest.approx((cluster + voronoi) / 2, rel=1e-5)
    pairs = pairwise_energy(logits.sigmoid(), images, sigma_pq=9.0, sigma_rgb=0.1).item()
    assert loss(0.5, beta=0.3) == pytest.approx((cluster + voronoi) / 2 + 0.3 * pairs, rel=1e-5)


def test_stages_in_their_order_and_where_they_start():
    stages = partial_points.stages(Settings(rounds=3, init="self-supervised"))
    assert [(s.name, s.init) for s in stages] == [
        ("encoder", None),
        ("detector_0", "encoder"),
        ("detector_1", "encoder"),
        ("detector_2", "encoder"),
        ("detector", "encoder"),
        ("segmentation_0", "encoder"),
        ("segmentation", "segmentation_0"),
    ]
    stages = partial_points.stages(Settings(rounds=1, fresh=False, refined=False))
    expected = [("detector_0", None), ("detector", "detector_0"), ("segmentation", None)]
    assert [(s.name, s.init) for s in stages] == expected
    names = [s.name for s in partial_points.stages(Settings(rounds=0))]
    assert names == ["detector", "segmentation_0", "segmentation"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    images = [TrainingImage(sample_of_discs(), {})]
    networks = train(partial_points.stages(SETTINGS), images, folder, augmentation=Augmentation())
    return images, networks


def test_all_stages_train_and_the_model_segments(trained, tmp_path):
    _, networks = trained
    assert list(networks) == ["detector_0", "detector_1", "detector", "segmentation_0", "segmentation"]
    assert all(w.isfinite().all() for n in networks.values() for w in n.state_dict().values())
    settings = {"width": 0.25, "threshold": 0.0}
    card = {
        "name": "tiny",
        "recipe": "partial_points",
        "mpp": 0.25,
        "halo": 64,
        "settings": settings,
        "class_names": ["Nucleus"],
        "class_colors": [[200, 60, 60]],
        "about": {},
    }
    kept = {name: networks[name] for name in partial_points.networks(SETTINGS)}
    save_model(kept, tmp_path / "model", card)
    model = load(ModelRef("partial_points", str(tmp_path / "model")))
    image = sample_of_discs().image[:150, :131]
    assert (model.segment(image) == 1).all()  # every probability is above 0
    assert not model.segment(image, threshold=1.01).any()
    labels = model.segment(image, threshold=0.5)
    assert labels.shape == (150, 131)
    prob = model.predict_whole(image)[0].prob
    assert ((prob > 0) & (prob < 1)).all()


def test_a_trained_model_teaches_the_last_round_and_is_refined(trained, tmp_path):
    images, first = trained
    stages = partial_points.stages(SETTINGS)
    again = train(stages, images, tmp_path, augmentation=Augmentation(), steps=1, start=first)
    assert {path.stem for path in tmp_path.glob("*.pt")} == {"detector", "segmentation"}
    given = first["segmentation"].state_dict()
    assert all(torch.equal(w, given[n]) for n, w in again["segmentation_0"].state_dict().items())


def test_components_are_the_nuclei():
    prob = np.zeros((1, 12, 12), np.float32)
    prob[0, 1:6, 1:6], prob[0, 3, 3], prob[0, 8:10, 8:10] = 0.9, 0.1, 0.7
    settings = Settings(min_area=5)
    labels, embedding = partial_points.group(Maps(prob), settings, Rect(0, 0, 12, 12))
    assert embedding is None
    assert labels.max() == 1
    assert labels[3, 3] == 1
    labels, _ = partial_points.group(Maps(prob), settings, Rect(0, 0, 12, 12), min_area=2)
    assert np.unique(labels).tolist() == [0, 1, 2]


def test_it_learns_dark_discs(tmp_path):
    """A quarter of the points: the detector finds more of the discs than were clicked."""
    schedule = Schedule(crops=160, batch=4, size=96, learning_rate=3e-3, average=0.9)
    settings = replace(SETTINGS, rounds=0, detector=schedule, sigma=4.0, max_spot=400)
    stage = partial_points.stages(settings)[:1]
    plain = Augmentation(zoom=(0.9, 1.1), deposits=0, debris=0, blur=0, sharpen=0, noise=0, no_eosin=0)
    sample = sample_of_discs()
    networks = train(stage, [TrainingImage(sample, {})], tmp_path, augmentation=plain)
    probability = partial_points.semantic_probability(networks["detector"], sample.image)
    y, x = np.floor(sample.points).astype(int).T
    far = extended_mask(sample.points, (160, 160), inner=11, outer=22, sigma=2) == 0
    assert probability[y, x].min() > probability[far].mean() + 0.2
