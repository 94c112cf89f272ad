"""PseudoEdgeNet: its losses by hand, its rows of Table 1, and f alone at inference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from slides_made import sample_of_discs
from torch import nn

from wsiseg.augment import Augmentation
from wsiseg.config import Config
from wsiseg.errors import ConfigError
from wsiseg.geometry import Rect
from wsiseg.learning import Plateau
from wsiseg.losses import edge_loss, partial_cross_entropy, sobel
from wsiseg.maps import Maps
from wsiseg.models import ModelRef
from wsiseg.networks.edges import EdgeNetwork
from wsiseg.networks.fpn import FPN
from wsiseg.parallel import Processes
from wsiseg.predict import load, load_networks, save_model
from wsiseg.recipes import pseudo_edge_net
from wsiseg.recipes.pseudo_edge_net import PseudoEdgeNet, Settings, point_targets, stages, together
from wsiseg.samples import Sample
from wsiseg.stages import HeldOut, Schedule, TrainingImage
from wsiseg.train import train

SCHEDULE = Schedule(crops=4, batch=2, size=64)
SETTINGS = Settings(width=0.25, edge_filters=8, min_area=0, segmentation=SCHEDULE)
ROWS = ["none", "large", "small", "attended"]


class Given(nn.Module):
    """A network that gives the same, whatever it is shown."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.as_tensor(values, dtype=torch.float32)

    def forward(self, x):
        return self.values


@pytest.fixture(scope="module")
def images():
    return [TrainingImage(sample_of_discs(), {})]


def run(images, folder, settings=SETTINGS, **options):
    return train(stages(settings), images, folder, augmentation=Augmentation(), **options)


# What the losses are.


def test_sobel_derivatives_are_those_of_scikit_image():
    from skimage.filters import sobel_h, sobel_v

    image = np.random.default_rng(0).random((2, 9, 7)).astype(np.float32)
    along = sobel(torch.from_numpy(image)).numpy()
    assert along.shape == (2, 2, 9, 7)
    # scikit-image divides by 4, and leaves out the border.
    for one, (y, x) in zip(image, along, strict=True):
        np.testing.assert_allclose(y[1:-1, 1:-1], 4 * sobel_h(one)[1:-1, 1:-1], atol=1e-5)
        np.testing.assert_allclose(x[1:-1, 1:-1], 4 * sobel_v(one)[1:-1, 1:-1], atol=1e-5)


def test_sobel_derivatives_by_hand():
    step = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
    assert sobel(step)[0, 0].tolist() == [[0, 0, 0], [4, 4, 4], [4, 4, 4]]
    assert sobel(step)[0, 1].tolist() == [[0] * 3] * 3
    assert torch.equal(sobel(step.transpose(1, 2))[0, 1], sobel(step)[0, 0].T)
    assert not sobel(torch.full((1, 4, 5), 0.7)).any()


def test_labels_are_weighted_and_the_sum_is_divided_by_their_weights():
    logits = torch.tensor(
        [[[np.log(3.0), 0.0, 0.0, 5.0]]]
    )  # probabilities 3/4, 1/2, 1/2, and one without a label
    labels = torch.tensor([[[2, 1, 1, 0]]])
    by_hand = (1.0 * np.log(4 / 3) + 0.1 * np.log(2) + 0.1 * np.log(2)) / 1.2
    weighted = partial_cross_entropy(logits, labels, background=0.1, nucleus=1.0)
    assert weighted.item() == pytest.approx(by_hand, rel=1e-5)
    plain = (np.log(4 / 3) + 2 * np.log(2)) / 3
    assert partial_cross_entropy(logits, labels).item() == pytest.approx(plain, rel=1e-5)


def test_edge_loss_by_hand():
    step = torch.tensor([[[0.0, 1.0]]])  # 4 along x, nothing along y
    edges = torch.tensor([[[[1.0, 0.0]], [[4.0, 2.0]]]])
    assert edge_loss(step, edges).item() == (1 + 0 + 0 + 2) / 4


@pytest.mark.parametrize(("attended", "scale"), [(False, 1.0), (True, 1.0), (True, 0.5)])
def test_the_whole_loss_by_hand(attended, scale):
    """f is 1/2 and 3/4: 1/4 apart, so 1 along x. g sees 3 there, and h lets half of it through."""
    f = Given([[[[0.0, np.log(3.0)]]]])
    g = Given([[[[0.0, 0.0]], [[3.0, 3.0]]]])
    h = Given([[[[0.0, 0.0]]]]) if attended else None
    settings = Settings(edge_weight=scale)
    targets = torch.tensor([[[[1, 2]]]])
    labels = (0.1 * np.log(2) + np.log(4 / 3)) / 1.1
    edges = (abs(1 - 1.5) if attended else abs(1 - 3)) / 2  # along y there is nothing, which halves the mean
    got = pseudo_edge_net.loss(settings, PseudoEdgeNet(f, g, h), torch.zeros(1, 3, 1, 2), targets, None)
    assert got.item() == pytest.approx(labels + scale * edges, rel=1e-5)
    alone = pseudo_edge_net.loss(settings, PseudoEdgeNet(f), torch.zeros(1, 3, 1, 2), targets, None)
    assert alone.item() == pytest.approx(labels, rel=1e-5)


def test_the_published_numbers_are_the_defaults():
    s = Settings()
    assert (s.background_weight, s.nucleus_weight, s.edge_weight, s.threshold) == (0.1, 1.0, 1.0, 0.5)
    assert (s.edge_layers, s.edge_filters, s.attention_depth, s.radius) == (4, 64, 18, 0)


# What is taught.


def test_points_are_nuclei_and_voronoi_boundaries_are_not():
    points = np.array([[1.5, 1.5], [1.5, 6.5]])
    sample = Sample("two", np.zeros((3, 8, 3), np.uint8), 0.25, points)
    row, middle = [0, 0, 0, 1, 1, 0, 0, 0], [0, 2, 0, 1, 1, 0, 2, 0]
    assert point_targets(0, sample, {}, {}).tolist() == [[row, middle, row]]
    roi = np.zeros((3, 8), bool)
    roi[:, :2] = True
    inside = point_targets(0, replace(sample, roi=roi), {}, {})
    assert inside.sum() == 2
    nothing = point_targets(0, replace(sample, points=np.zeros((0, 2))), {}, {})
    assert (nothing == 1).all()


# The networks.


def test_the_small_edge_network_is_the_papers():
    network = EdgeNetwork()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(3, 64), (64, 64), (64, 64), (64, 2)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 3
    edges = network(torch.rand(2, 3, 32, 64))
    assert edges.shape == (2, 2, 32, 64)
    assert edges.min() < 0 < edges.max()


@pytest.mark.parametrize("layers", [2, 4, 6, 8])
def test_small_edge_networks_of_table_2(layers):
    network = EdgeNetwork(layers=layers, filters=4)
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == layers


@pytest.mark.parametrize(
    ("edges", "kinds"),
    [
        ("none", (FPN, type(None), type(None))),
        ("large", (FPN, FPN, type(None))),
        ("small", (FPN, EdgeNetwork, type(None))),
        ("attended", (FPN, EdgeNetwork, FPN)),
    ],
)
def test_rows_of_table_1(edges, kinds):
    network = together(replace(SETTINGS, edges=edges))
    assert tuple(map(type, (network.segmentation, network.edges, network.attention))) == kinds
    logits, seen = network(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 64, 64)
    assert seen is None if edges == "none" else seen.shape == (2, 2, 64, 64)
    if edges == "large":
        assert sum(p.numel() for p in network.edges.parameters()) > 0.99 * sum(
            p.numel() for p in network.segmentation.parameters()
        )


def test_all_three_learn_from_the_edges_alone():
    network = together(SETTINGS)
    nothing_labelled = torch.zeros(2, 1, 64, 64, dtype=torch.long)
    pseudo_edge_net.loss(SETTINGS, network, torch.rand(2, 3, 64, 64), nothing_labelled, None).backward()
    for part in (network.segmentation, network.edges, network.attention):
        assert sum(p.grad.abs().sum() for p in part.parameters() if p.grad is not None) > 0


# Training, and f alone after it.


@pytest.mark.parametrize("edges", ROWS)
def test_every_row_takes_a_step_and_gives_f_alone(images, tmp_path, edges):
    settings = replace(SETTINGS, edges=edges)
    trained = run(images, tmp_path, settings, steps=1)
    assert set(trained) == set(pseudo_edge_net.networks(settings)) == {"segmentation"}
    assert type(trained["segmentation"]) is FPN
    assert not trained["segmentation"].training


@pytest.fixture(scope="module")
def config():
    return Config(name="tiny", recipe="pseudo_edge_net", halo=64, settings=SETTINGS)


def test_a_model_holds_f_alone_and_segments(images, tmp_path, config):
    trained = run(images, tmp_path)
    save_model(trained, tmp_path / "model", config.card())
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model.json", "segmentation.safetensors"}
    model = load(ModelRef("pseudo_edge_net", str(tmp_path / "model")))
    image = images[0].sample.image
    # f as it was trained, in float32 and by itself, says the same.
    maps, inside = model.predict_whole(image)
    f = trained["segmentation"]
    padded = torch.from_numpy(np.pad(image, ((32, 32), (32, 32), (0, 0)), mode="symmetric"))
    with torch.inference_mode():
        alone = f(padded.permute(2, 0, 1)[None].float() / 255)[0, 0].sigmoid().numpy()
    assert np.abs(maps.prob[0] - alone).max() < 0.02
    threshold = float(np.median(maps.prob[0][inside]))
    labels = model.segment(image, threshold=threshold, min_area=1)
    assert labels.shape == image.shape[:2]
    assert labels.max() > 0
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))
    found = labels > 0
    above = maps.prob[0][inside] >= threshold
    assert (found >= above).all()


def test_components_are_the_nuclei():
    prob = np.zeros((1, 8, 12), np.float32)
    prob[0, 1:4, 1:4], prob[0, 1:4, 6:11], prob[0, 6, 6] = 0.5, 0.9, 0.8
    prob[0, 2, 8] = 0.1  # a hole
    labels, embedding = pseudo_edge_net.group(Maps(prob), Settings(min_area=2), Rect(0, 0, 8, 12))
    assert embedding is None
    assert np.bincount(labels.ravel()).tolist() == [96 - 9 - 15, 9, 15]


def test_it_learns_dark_discs(images, tmp_path):
    schedule = Schedule(crops=240, batch=4, size=96, learning_rate=3e-3, average=0.9)
    plain = Augmentation(zoom=(0.9, 1.1), deposits=0, debris=0, blur=0, sharpen=0, noise=0, no_eosin=0)
    settings = replace(SETTINGS, segmentation=schedule)
    f = train(stages(settings), images, tmp_path, augmentation=plain)
    image = images[0].sample.image
    prob = pseudo_edge_net.maps(f, settings, torch.from_numpy(image).permute(2, 0, 1)[None] / 255, [(0, 0)])[
        0
    ].prob[0]
    y, x = np.floor(images[0].sample.points).astype(int).T
    assert prob[y, x].mean() > prob[8, ::7].mean() + 0.2


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(images, tmp_path, monkeypatch):
    """With g and h, and with a learning rate that plateaus halve."""
    schedule = replace(SCHEDULE, crops=16, shape="plateau", epoch=2, patience=1, learning_rate=0.1)
    settings = replace(SETTINGS, segmentation=schedule)
    whole = run(images, tmp_path / "whole", settings)["segmentation"].state_dict()
    monkeypatch.setattr("wsiseg.train.CHECKPOINT_SECONDS", -1.0)

    def stop(stage, step, steps, loss):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", settings, progress=stop)
    left = torch.load(tmp_path / "cut" / "segmentation.ckpt", weights_only=True)
    assert left["plateau"]["factor"] < 1
    resumed = run(images, tmp_path / "cut", settings)["segmentation"].state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    finished = run(images, tmp_path / "cut", settings)["segmentation"].state_dict()
    assert all(torch.equal(whole[name], finished[name]) for name in whole)


def test_training_goes_on_from_a_models_f(images, tmp_path, config):
    given = run(images, tmp_path / "first")
    save_model(given, tmp_path / "model", config.card())
    start = load_networks(str(tmp_path / "model"), "pseudo_edge_net", SETTINGS)
    still = replace(SCHEDULE, crops=2, learning_rate=0.0, weight_decay=0.0)
    second = run(images, tmp_path / "second", replace(SETTINGS, segmentation=still), start=start)
    for name, weight in second["segmentation"].named_parameters():
        assert torch.equal(weight, start["segmentation"].get_parameter(name))


def test_f_is_what_is_checked_on_held_out_images(images, tmp_path):
    run(images, tmp_path, held_out=HeldOut([images[0].sample], every=1))
    rows = (tmp_path / "segmentation.csv").read_text().splitlines()
    assert rows[0] == "step,loss,point F1"
    assert len(rows) == 3


def test_the_self_supervised_start_is_where_f_starts(images, tmp_path):
    still = replace(SCHEDULE, crops=2, learning_rate=0.0, weight_decay=0.0)
    begin = Schedule(crops=2, batch=2, size=128)
    settings = replace(SETTINGS, init="self-supervised", encoder=begin, segmentation=still)
    trained = run(images, tmp_path, settings)
    name = "layer1.0.conv1.weight"
    start = trained["encoder"].state_dict()[name]
    assert torch.equal(trained["segmentation"].state_dict()[name], start)
    # From a trained model the encoder is that model's, and nothing is taught anew.
    again = train(stages(settings)[:1], images, tmp_path / "b", augmentation=Augmentation(), start=trained)
    assert torch.equal(again["encoder"].state_dict()[name], start)
    assert not (tmp_path / "b" / "encoder.csv").exists()


def test_a_checkpoint_is_where_f_starts(tmp_path):
    donor = FPN(1, width=0.25).state_dict()
    torch.save({n: w for n, w in donor.items() if n.startswith("layer")}, tmp_path / "r.pth")
    network = together(replace(SETTINGS, init=str(tmp_path / "r.pth")))
    name = "layer4.1.conv2.weight"
    assert torch.equal(network.segmentation.state_dict()[name], donor[name])
    assert not torch.equal(network.attention.state_dict()[name], donor[name])
    with pytest.raises(ConfigError, match="cannot be read"):
        together(replace(SETTINGS, init=str(tmp_path / "absent.pth")))


# The learning rate.


def test_the_rate_is_halved_after_epochs_that_were_no_better():
    plateau = Plateau(Schedule(batch=1, shape="plateau", epoch=2, patience=2))
    factors = []
    for step, loss in enumerate(
        [4, 2, 1, 3, 2, 4, 1, 5, 3, 3, 0, 1, 2, 2, 2, 2]
    ):  # means 3, 2, 3, 3, 3, .5, 2, 2
        plateau.add(step, loss, Processes(), "cpu")
        factors.append(plateau.factor)
    assert factors[1::2] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("shape", ["cosine", "constant"])
def test_other_rates_are_never_halved(shape):
    plateau = Plateau(Schedule(batch=1, shape=shape, epoch=1, patience=1))
    for step in range(5):
        plateau.add(step, float(step), Processes(), "cpu")
    assert plateau.factor == 1
