from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from slides_made import discs

from wsiseg import predict
from wsiseg.augment import Augmentation
from wsiseg.config import Config, read_config
from wsiseg.errors import DataError
from wsiseg.geometry import Rect
from wsiseg.image import segment_image
from wsiseg.maps import Maps
from wsiseg.models import ModelRef
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS, UNLABELLED, voronoi_cells
from wsiseg.recipes import multi_task
from wsiseg.recipes._encodings import local_cluster_labels, repel_code, two_means
from wsiseg.recipes.multi_task import LEVELS, Settings
from wsiseg.samples import Sample
from wsiseg.stages import HeldOut, Schedule, TrainingImage
from wsiseg.train import train

CONFIGS = Path(__file__).parents[1] / "configs"
RNG = np.random.default_rng(0)
TWO = Settings(
    width=0.25, class_names=("Positive", "Negative"), class_colors=((250, 62, 62), (112, 112, 225)), apart=6
)


def disc(shape, centre, radius):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_repel_code_by_hand():
    code = repel_code(np.array([[0.5, 0.5], [0.5, 10.5]]), (1, 12), alpha=0.05, reach=70)[0]
    assert code[0] == code[10] == 1
    assert code[2] == pytest.approx(1 / (1 + 0.05 * 2 * (1 + 2 / 8)))
    assert code[5] == pytest.approx(1 / (1 + 0.05 * 5 * 2))  # half way, D is twice the distance
    assert code[11] == pytest.approx(1 / (1 + 0.05 * 1 * (1 + 1 / 11)))


def test_repel_code_of_one_point_is_the_proximity_code_and_ends_at_its_reach():
    code = repel_code(np.array([[0.5, 0.5]]), (1, 12), alpha=0.1, reach=8)[0]
    assert code[:8] == pytest.approx(1 / (1 + 0.1 * np.arange(8)))
    assert (code[8:] == 0).all()
    assert (repel_code(np.zeros((0, 2)), (3, 4)) == 0).all()
    assert np.isfinite(repel_code(np.array([[1.2, 1.2], [1.7, 1.7]]), (3, 4))).all()


def test_filtered_repel_is_background_outside_the_clusters():
    clusters = np.full((9, 20), BACKGROUND, np.int8)
    clusters[3:6, 3:8] = NUCLEUS
    points = np.array([[4.5, 5.5], [4.5, 15.5]])
    target = multi_task.filtered_repel(points, clusters, alpha=0.05, reach=70)
    assert target[4, 5] == 1 + LEVELS
    assert target[4, 7] == 1 + round(LEVELS / (1 + 0.05 * 2 * (1 + 2 / 8)))
    assert (target[clusters == BACKGROUND] == 1).all()


def test_two_means_are_those_of_kmeans_cell_by_cell():
    cell = RNG.integers(3, 6, 600)
    inside = RNG.random(600) < 0.4
    features = RNG.normal(0, 0.6, (600, 4)) + np.where(inside, 1.0, 0.0)[:, None] + cell[:, None]
    first = inside ^ (RNG.random(600) < 0.2)
    found = two_means(features, cell, first)
    for number in range(3, 6):
        own = cell == number
        start = np.stack([features[own & ~first].mean(0), features[own & first].mean(0)])
        slow = KMeans(2, init=start, n_init=1, algorithm="lloyd", tol=0).fit_predict(features[own])
        assert (slow == found[own]).all()


def test_a_cell_of_one_cluster_stays_as_it_is():
    assert two_means(
        np.ones((4, 2)), np.array([1, 1, 2, 2]), np.array([True, True, False, False])
    ).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_local_clusters_outline_a_pale_nucleus_beside_a_dark_one():
    """What one threshold for the whole image would lose: the pale nucleus is paler than the other's background."""
    shape, centres = (60, 120), np.array([[30.0, 30.0], [30.0, 90.0]])
    image = np.zeros((*shape, 3))
    image[:, :60], image[:, 60:] = (180, 140, 180), (245, 240, 245)
    nuclei = [disc(shape, centre, 9) for centre in centres]
    image[nuclei[0]], image[nuclei[1]] = (80, 40, 120), (205, 190, 215)
    noisy = (image + RNG.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)
    labels = local_cluster_labels(noisy, centres, colour_weight=4)
    for nucleus, part in zip(nuclei, (np.s_[:, :60], np.s_[:, 60:]), strict=True):
        found, true = labels[part] == NUCLEUS, nucleus[part]
        assert (found & true).sum() / (found | true).sum() > 0.9
    assert set(np.unique(labels)) == {BACKGROUND, NUCLEUS}


def test_outside_the_region_nothing_is_labelled_nor_looked_at():
    shape = (60, 60)
    image = np.full((*shape, 3), 230, np.uint8)
    image[disc(shape, (20, 20), 8)] = (90, 60, 140)
    roi = np.zeros(shape, bool)
    roi[:40] = True
    spoilt = image.copy()
    spoilt[40:] = 0
    sample = Sample("drawn", spoilt, 0.5, np.array([[20.0, 20.0]]), roi, None, ("Positive",))
    labels = multi_task.targets(TWO, sample, {}, {})
    assert (labels[:, 40:] == UNLABELLED).all()
    clean = multi_task.targets(TWO, replace(sample, image=image), {}, {})
    assert (labels == clean).all()
    assert (labels[:3, :40][[0, 2]] > 0).all()


def test_targets_name_the_class_of_each_nucleus():
    picture, centres = discs((160, 160))
    names = tuple(("Positive", "Negative", "")[i % 3] for i in range(len(centres)))
    sample = Sample("drawn", picture, 0.5, centres, None, None, names)
    clusters, voronoi, repel, classes = multi_task.targets(TWO, sample, {}, {})
    y, x = np.floor(centres).astype(int).T
    assert classes[y, x].tolist() == [{"Positive": 2, "Negative": 3, "": 0}[name] for name in names]
    assert (classes[(clusters == BACKGROUND) & (voronoi != NUCLEUS)] == 0).all()
    assert (repel[y, x] == 1 + LEVELS).all()
    cells = voronoi_cells(centres, (160, 160))
    assert all(len(np.unique(classes[(cells == n) & (classes > 0)])) <= 1 for n in range(1, len(centres) + 1))
    with pytest.raises(DataError, match="class 'Tumor'; class_names are Positive, Negative"):
        multi_task.targets(TWO, replace(sample, classes=("Tumor",) * len(centres)), {}, {})


def test_an_empty_image_is_all_background():
    sample = Sample("glass", np.full((40, 40, 3), 240, np.uint8), 0.25, np.zeros((0, 2)))
    assert (multi_task.targets(Settings(), sample, {}, {}) == BACKGROUND).all()


def test_one_loss_a_step_in_the_papers_order():
    """Eq. 4: Voronoi, repel, cluster; with classes a fourth."""
    in_turn = multi_task.voronoi_loss, multi_task.repel_loss, multi_task.cluster_loss
    (stage,) = multi_task.stages(Settings())
    assert [stage.loss_at(step).args for step in range(7)] == [
        ((task,),) for task in (*in_turn * 2, in_turn[0])
    ]
    (stage,) = multi_task.stages(TWO)
    assert stage.loss_at(3).args == ((multi_task.class_loss,),)
    assert stage.loss_at(4).args == ((multi_task.voronoi_loss,),)
    (stage,) = multi_task.stages(replace(TWO, in_turn=False))
    assert stage.loss_at(0) is stage.loss_at(1)
    assert stage.loss_at(0).args == ((*in_turn, multi_task.class_loss),)


class Given(torch.nn.Module):
    """A network that says what it was told to."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits


def test_losses_by_hand():
    network = Given([[[[0.0, np.log(3.0)]], [[1.0, 2.0]], [[1.0, 0.0]]]])  # probabilities 1/2, 3/4
    images = torch.zeros(1, 3, 1, 2)
    labels = torch.tensor([[[[2, 1]], [[2, 0]], [[1 + LEVELS, 1]], [[2, 0]]]])

    def losses(settings):
        return [one(network, images, labels, RNG).item() for one in multi_task.scheduler(settings)]

    by_hand = [np.log(2), (0.5**2 + 0.75**2) / 2, (np.log(2) + np.log(4)) / 2, np.log(2)]
    assert losses(TWO) == pytest.approx(by_hand)
    assert losses(replace(TWO, in_turn=False)) == pytest.approx([np.mean(by_hand)])
    labels[:] = 0
    assert losses(TWO) == [0, 0, 0, 0]


def hills(*tops, shape=(40, 80), width=4.0):
    """The highest of Gaussian hills (y, x, height)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    each = [h * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)) for cy, cx, h in tops]
    return np.max(each, axis=0).astype(np.float32)


def test_peaks_are_the_highest_within_their_distance():
    prob = hills((10, 10, 0.9), (10, 22, 0.8), (30, 60, 0.7), (30, 30, 0.4))
    assert multi_task.peaks(prob, 8, 0.5).tolist() == [[10, 10], [10, 22], [30, 60]]
    assert multi_task.peaks(prob, 12, 0.5).tolist() == [[10, 10], [30, 60]]
    assert multi_task.peaks(prob * 0, 10, 0.5).shape == (0, 2)
    at_border = hills((0, 0, 0.9), (39, 79, 0.9))
    assert sorted(multi_task.peaks(at_border, 10, 0.5).tolist()) == [[0, 0], [39, 79]]


def test_touching_nuclei_are_divided_and_each_has_its_class():
    nucleus = hills((20, 20, 0.95), (20, 32, 0.95), (20, 60, 0.95), width=6.0)
    share = np.where(np.arange(80) < 26, 0.9, 0.2)
    tile = Maps(np.stack([nucleus * share, nucleus * (1 - share)]).astype(np.float32))
    settings = replace(TWO, apart=6, threshold=0.5)
    labels, embedding = multi_task.group(tile, settings, Rect(0, 0, 40, 80))
    assert embedding is None
    assert labels.max() == 3
    assert len({labels[20, 20], labels[20, 32], labels[20, 60]}) == 3
    whole, _ = multi_task.group(tile, replace(settings, split=False), Rect(0, 0, 40, 80))
    assert whole.max() == 2
    points, classes = multi_task.detections(tile, settings)
    assert {(*p, c) for p, c in zip(points.tolist(), classes.tolist(), strict=True)} == {
        (20.5, 20.5, 0),
        (20.5, 32.5, 1),
        (20.5, 60.5, 1),
    }


def test_probabilities_of_the_classes_sum_to_that_of_a_nucleus():
    logits = torch.randn(2, 3, 4, 5)
    prob = multi_task.probabilities(logits)
    torch.testing.assert_close(prob.sum(1), logits[:, 0].sigmoid())
    assert torch.equal(prob.argmax(1), logits[:, 1:].argmax(1))
    torch.testing.assert_close(multi_task.probabilities(logits[:, :1]), logits[:, :1].sigmoid())


@pytest.fixture(scope="module")
def images():
    """Dark brown and dark blue discs on grey, with their centres and classes."""
    picture, centres = discs((192, 192), step=32)
    names = []
    cells = voronoi_cells(centres, (192, 192))
    picture = np.where((picture[..., :1] < 150), picture, 225).astype(np.uint8)
    for number in range(1, len(centres) + 1):
        positive = number % 2 == 0
        names.append("Positive" if positive else "Negative")
        own = (cells == number) & (picture[..., 0] < 150)
        picture[own] = (120, 70, 30) if positive else (70, 80, 160)
    return [TrainingImage(Sample("discs", picture, 0.5, centres, None, None, tuple(names)), {})]


PLAIN = Augmentation(
    zoom=(0.9, 1.1),
    haematoxylin=(0.9, 1.1),
    eosin=(0.9, 1.1),
    no_eosin=0,
    immunostain=0,
    hue=0,
    deposits=0,
    debris=0,
    blur=0,
)


def test_it_learns_where_nuclei_are_and_of_which_class(images, tmp_path):
    schedule = Schedule(crops=800, batch=4, size=64, learning_rate=3e-3, optimiser="ranger", average=0.9)
    settings = replace(TWO, unet=schedule, min_area=20)
    check = HeldOut([images[0].sample], every=100)
    networks = train(multi_task.stages(settings), images, tmp_path, augmentation=PLAIN, held_out=check)
    config = Config(name="drawn", recipe="multi_task", mpp=0.5, halo=64, settings=settings)
    card = predict.save_model(networks, tmp_path / "model", config.card())
    assert card.class_names == ("Positive", "Negative")
    assert card.class_colors == ((250, 62, 62), (112, 112, 225))
    sample = images[0].sample
    labels = segment_image(sample.image, model=str(tmp_path / "model"), mpp=0.5)
    y, x = np.floor(sample.points).astype(int).T
    assert len(set(labels[y, x].tolist()) - {0}) >= 0.9 * len(y)
    assert np.mean(classes_of(tmp_path / "model", sample)) > 0.9


def classes_of(folder, sample):
    """Whether the class of the nucleus on each point is the point's, as a slide's nuclei get theirs."""
    from wsiseg.image import FlatImage
    from wsiseg.job import make_settings
    from wsiseg.slides.resample import PlanView
    from wsiseg.tiling import make_plan
    from wsiseg.worker import segment_tiles

    model = predict.load(ModelRef("multi_task", str(folder)))
    view = PlanView(FlatImage(sample.image), 0.5, 0.5)
    plan = make_plan(view.shape, mpp=0.5, core=192, halo=64)
    found = segment_tiles(model, view, plan.tasks[0], lambda nuclei, tile: nuclei, make_settings(model.card))
    apart = np.linalg.norm(found.centroid[:, None] - sample.points, axis=2)
    return [
        model.card.class_names[found.label[apart[:, i].argmin()]] == name
        for i, name in enumerate(sample.classes)
    ]


def test_configurations_are_what_they_say():
    paper, small, ihc = (
        read_config(CONFIGS / f"{name}.toml")
        for name in ("multi-task-multiorgan", "multi-task-small", "ihc-points")
    )
    assert (paper.settings.depth, paper.settings.unet.steps, paper.settings.unet.batch) == (50, 60_900, 8)
    assert (paper.settings.alpha, paper.settings.reach) == (0.05, 70)
    for config in (paper, small, ihc):
        assert config.settings.apart * config.mpp == 2.5
    assert ihc.classes == tuple(ihc.card()["class_names"]) == ("Positive", "Negative")
    assert ihc.data[0].clicks.names == {"1": "Positive", "2": "Negative"}
