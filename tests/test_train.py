from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from slides_made import sample_of_discs

from wsiseg.augment import Augmentation
from wsiseg.errors import ConfigError
from wsiseg.learning import Curve, minutes_of
from wsiseg.pseudo_labels import BACKGROUND, NUCLEUS, UNLABELLED, voronoi_cells
from wsiseg.recipes import _point_targets, spn_ien
from wsiseg.stages import HeldOut, Schedule, TrainingImage
from wsiseg.train import train

SCHEDULE = Schedule(crops=24, batch=2, size=64)
SETTINGS = spn_ien.Settings(width=0.25, spn=SCHEDULE, ien=SCHEDULE)


class Dark(torch.nn.Module):
    """A teacher that takes every dark pixel for a nucleus."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        return self.weight * (0.7 - x[:, :1])


@pytest.fixture(scope="module")
def images():
    return [TrainingImage(sample_of_discs(), {})]


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
    probability = _point_targets.semantic_probability(networks["spn"], sample.image)
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


def test_a_second_round_learns_from_the_first_and_its_points(images, tmp_path):
    settings = replace(SETTINGS, refresh=0.3, spn_again=SCHEDULE)
    stages = spn_ien.stages(settings)
    assert [stage.name for stage in stages] == ["spn_first", "spn", "ien"]
    networks = train(stages, images, tmp_path, augmentation=Augmentation(), steps=1)
    assert set(networks) == {"spn_first", "spn", "ien"}


@pytest.mark.parametrize("crops", [SCHEDULE.crops, 0])
def test_a_trained_model_is_the_teacher_of_a_second_round(images, tmp_path, crops):
    first = run(images, tmp_path / "first", steps=1)
    taught_before = replace(SCHEDULE, crops=crops)
    stages = spn_ien.stages(replace(SETTINGS, refresh=0.3, spn=taught_before, spn_again=SCHEDULE))
    second = train(stages, images, tmp_path / "b", augmentation=Augmentation(), steps=1, start=first)
    given = first["spn"].state_dict()
    assert all(torch.equal(w, given[n]) for n, w in second["spn_first"].state_dict().items())
    assert not (tmp_path / "b" / "spn_first.csv").exists()


def test_what_stays_as_it_is_must_be_there(images, tmp_path):
    untaught = replace(SETTINGS, ien=replace(SCHEDULE, crops=0))
    with pytest.raises(ConfigError, match=r"ien has crops = 0 .* start from a model"):
        train(spn_ien.stages(untaught), images, tmp_path / "run", augmentation=Augmentation())
    assert not (tmp_path / "run").exists()


def test_refreshed_labels_are_what_the_points_confirm(images):
    """One disc was not clicked."""
    sample = images[0].sample
    clicked = replace(sample, points=sample.points[1:])
    labels = _point_targets.refreshed_targets(0.5, clicked, {}, {"spn_first": Dark()})
    y, x = np.floor(sample.points).astype(int).T
    assert (labels[0, y[1:], x[1:]] == NUCLEUS).all()
    assert labels[0, y[0], x[0]] == BACKGROUND
    assert (labels[0, 8, ::7] == BACKGROUND).all()
    settled = _point_targets.refreshed_targets(
        0.5, clicked, {}, {"spn_first": Dark()}, settle=(1, 3), smooth=1.0
    )
    assert set(np.unique(settled[0])) == {BACKGROUND, NUCLEUS}  # nothing is left out near an outline
    assert (settled[0, y[1:], x[1:]] == NUCLEUS).all()
    assert settled[0, y[0], x[0]] == BACKGROUND


@pytest.mark.parametrize("seen", [0.3, 0.7])
def test_an_image_whose_points_the_teacher_misses_keeps_its_first_labels(images, seen):
    sample = images[0].sample
    background = sample.image[8, 7]
    faint = replace(sample, image=sample.image.copy())
    pieces, _ = ndimage.label(sample.image[..., 0] < 0.7 * 255)
    y, x = np.floor(sample.points[int(seen * len(sample.points)) :]).astype(int).T
    faint.image[np.isin(pieces, pieces[y, x])] = background
    first = _point_targets.semantic_targets(faint, {}, {})
    labels = _point_targets.refreshed_targets(0.5, faint, {}, {"spn_first": Dark()})
    assert (labels == first).all() == (seen < 0.5)


def test_a_click_that_the_teacher_misses_keeps_its_first_labels(images):
    """One disc is paler than what the teacher sees."""
    sample = images[0].sample
    pale = replace(sample, image=sample.image.copy())
    pieces, _ = ndimage.label(sample.image[..., 0] < 0.7 * 255)
    y, x = np.floor(sample.points).astype(int).T
    pale.image[pieces == pieces[y[0], x[0]]] = (190, 120, 170)
    first = _point_targets.semantic_targets(pale, {}, {})[0]
    labels = _point_targets.refreshed_targets(0.5, pale, {}, {"spn_first": Dark()}, settle=(1, 3))[0]
    own = voronoi_cells(sample.points, labels.shape) == 1
    assert (labels[own] == first[own]).all()
    assert labels[y[0], x[0]] == NUCLEUS
    assert (labels != first)[~own].any()


def test_refreshed_labels_have_no_halos(images):
    """The teacher draws each disc eight pixels too wide, in even tissue."""

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, x):
            return self.weight * torch.nn.functional.max_pool2d(0.7 - x[:, :1], 17, 1, 8)

    sample = images[0].sample
    alone = replace(sample, points=sample.points[:1], image=sample.image.copy())
    y, x = np.floor(sample.points[0]).astype(int)
    dark = sample.image[..., 0] < 0.7 * 255
    pieces, _ = ndimage.label(dark)
    alone.image[dark & (pieces != pieces[y, x])] = np.median(sample.image[~dark], axis=0)
    wide, narrow = (
        _point_targets.refreshed_targets(
            0.5, alone, {}, {"spn_first": Wide()}, settle=(1, 3), smooth=1.0, least_edge=least
        )[0]
        == NUCLEUS
        for least in (0.0, 40.0)
    )
    true = (pieces == pieces[y, x]).sum()
    assert wide.sum() > 1.8 * true
    assert 0.8 * true < narrow.sum() < 1.3 * true


def test_traced_labels_are_better_than_what_the_teacher_sees(images):
    """The teacher draws each disc three pixels too small; the points' nuclei are traced on the image, for both networks."""

    class Small(Dark):
        def forward(self, x):
            return super().forward(torch.nn.functional.max_pool2d(x, 7, 1, 3))

    sample = images[0].sample
    pieces, _ = ndimage.label(sample.image[..., 0] < 0.7 * 255)
    y, x = np.floor(sample.points).astype(int).T
    networks = {"spn_first": Small(), "spn": Small()}

    def meet(labels, number, piece):
        return (labels[pieces == piece] == number).sum() / ((labels == number) | (pieces == piece)).sum()

    for trace, least, most in ((0, 0, 0.6), (7, 0.8, 1)):
        semantic = _point_targets.refreshed_targets(0.5, sample, {"trace": trace}, networks)
        numbered = _point_targets.instance_targets(0.5, None, sample, {"trace": trace}, networks)[0]
        for number, piece in enumerate(pieces[y, x], 1):
            assert least <= meet(numbered, number, piece) <= most
        if trace:
            assert ((semantic[0] == NUCLEUS) == (numbered > 0)).mean() > 0.98
    beside = _point_targets.instance_targets(0.5, 0.3, sample, {"trace": 7}, networks)[0]
    assert (beside[numbered > 0] == numbered[numbered > 0]).all()
    assert set(np.unique(beside)) - {0} == {*range(1, len(y) + 2)}


@pytest.mark.parametrize("options", [{}, {"trace": 7}])
def test_what_looks_like_a_nucleus_that_nobody_clicked_teaches_nothing_where_it_is_doubted(images, options):
    sample = images[0].sample
    pieces, _ = ndimage.label(sample.image[..., 0] < 0.7 * 255)
    inside = ndimage.binary_erosion(pieces > 0, iterations=2) * pieces
    y, x = np.floor(sample.points).astype(int).T
    sample = replace(sample, points=sample.points[1:])  # one disc is not clicked
    not_clicked, clicked = inside == pieces[y[0], x[0]], np.isin(inside, pieces[y[1:], x[1:]])
    glass = ndimage.distance_transform_edt(pieces == 0) > 5
    for doubt, taught in ((0, BACKGROUND), (1, UNLABELLED)):
        given = {**options, "doubt": doubt}
        made = [_point_targets.refreshed_targets(0.5, sample, given, {"spn_first": Dark()})[0]]
        if options:  # k-means alone takes that disc for a nucleus
            made.append(_point_targets.semantic_targets(sample, given, {})[0])
        for labels in made:
            assert (labels[not_clicked] == taught).mean() > 0.95
            assert (labels[clicked] == NUCLEUS).mean() > 0.95
            assert (labels[glass] == BACKGROUND).mean() > 0.95


def test_weights_go_part_of_the_way(images, tmp_path):
    (spn, _) = spn_ien.stages(SETTINGS)
    schedule = Schedule(crops=4, batch=2, size=64)
    began, half, whole = (
        train(
            [replace(spn, schedule=replace(schedule, share=share))],
            images,
            tmp_path / str(share),
            augmentation=Augmentation(),
        )["spn"].state_dict()["conv1.weight"]
        for share in (0.0, 0.5, 1.0)
    )
    assert not torch.allclose(began, whole)
    torch.testing.assert_close(half, (began + whole) / 2)


def test_later_stages_learn_from_what_was_taught_and_not_from_part_of_it(images, tmp_path):
    spn, ien = spn_ien.stages(SETTINGS)
    schedule = Schedule(crops=4, batch=2, size=64, share=0.5)
    seen = []

    def targets(sample, options, networks):
        seen.append(networks["spn"].state_dict()["conv1.weight"].clone())
        return ien.targets(sample, options, networks)

    stages = [replace(spn, schedule=schedule), replace(ien, schedule=schedule, targets=targets)]
    first, again = (train(stages, images, tmp_path, augmentation=Augmentation()) for _ in range(2))
    (taught,) = seen
    assert not torch.allclose(taught, first["spn"].state_dict()["conv1.weight"])
    kept = torch.load(tmp_path / "spn.pt", weights_only=True)["conv1.weight"]
    torch.testing.assert_close(taught, kept)
    for name in first:
        both = zip(first[name].state_dict().values(), again[name].state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in both)


def test_the_self_supervised_start_is_where_the_networks_start(images, tmp_path):
    settings = replace(SETTINGS, init="self-supervised", encoder=Schedule(crops=8, batch=2, size=128))
    stages = spn_ien.stages(settings)
    assert [(stage.name, stage.init) for stage in stages] == [
        ("encoder", None),
        ("spn", "encoder"),
        ("ien", "spn"),
    ]
    networks = train(stages[:1], images, tmp_path, augmentation=Augmentation())
    start = networks["encoder"].state_dict()["layer1.0.conv1.weight"]
    spn = replace(
        stages[1], schedule=Schedule(crops=2, batch=2, size=64, learning_rate=0.0, weight_decay=0.0)
    )
    after = train((stages[0], spn), images, tmp_path, augmentation=Augmentation())
    assert torch.equal(after["spn"].state_dict()["layer1.0.conv1.weight"], start)
    # From a trained model the encoder is that model's, and nothing is taught anew.
    again = train(stages[:1], images, tmp_path / "again", augmentation=Augmentation(), start=after)
    assert torch.equal(again["encoder"].state_dict()["layer1.0.conv1.weight"], start)
    assert not (tmp_path / "again" / "encoder.csv").exists()


def held_out(images, **options):
    labels = np.zeros(images[0].sample.image.shape[:2], np.int32)
    labels[20:30, 20:30] = 1
    return HeldOut([replace(images[0].sample, labels=labels)], **options)


def test_the_best_weights_on_held_out_points_are_kept(images, tmp_path):
    """Checks after 2, 4, ... steps; what they gave lies beside the loss, and AJI is only told."""
    scores = iter([0.2, 0.9, 0.4, 0.1, 0.0, 0.0])

    def found(networks, image):
        y, x = np.floor(images[0].sample.points).astype(int).T
        labels = np.zeros(image.shape[:2], np.int32)
        count = round(16 * next(scores))
        labels[y[:count], x[:count]] = np.arange(1, count + 1)
        return labels

    stage = replace(spn_ien.stages(SETTINGS)[0], nuclei=found)
    check = held_out(images, every=2, patience=3)
    train((stage,), images, tmp_path, augmentation=Augmentation(), held_out=check)
    rows = (tmp_path / "spn.csv").read_text().splitlines()
    assert rows[0] == "step,loss,point F1,AJI (authors)"
    # 12 steps were planned; after the best at the fourth there were three worse ones.
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "3", "5", "7", "9"]
    assert not (tmp_path / "spn.best").exists()


def test_a_checked_run_that_was_cut_off_ends_as_one_that_was_not(images, tmp_path, monkeypatch):
    check = held_out(images, every=3)
    whole = weights(run(images, tmp_path / "whole", held_out=check))
    monkeypatch.setattr("wsiseg.train.CHECKPOINT_SECONDS", -1.0)

    def stop(stage, step, steps, loss):
        if stage == "spn" and step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut", progress=stop, held_out=check)
    resumed = weights(run(images, tmp_path / "cut", held_out=check))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [(tmp_path / name / "spn.csv").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]


def test_minutes_are_those_of_all_sittings(images, tmp_path, monkeypatch):
    now = 100.0

    def stop(stage, step, steps, loss):
        nonlocal now
        now += 60
        if step == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr("wsiseg.train.CHECKPOINT_SECONDS", 100.0)
    monkeypatch.setattr("wsiseg.learning.time.monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, progress=stop)
    # Checkpoints were kept after the second, the fourth and the sixth step: what came later is done again.
    assert minutes_of(tmp_path) == 6.0
    now = 1_000.0
    run(images, tmp_path, progress=lambda *_: None)
    assert minutes_of(tmp_path) == 6.0


def test_a_constant_rate_is_constant_and_a_trained_start_slows_the_other():
    constant = Schedule(crops=160, batch=4, shape="constant", learning_rate=1e-4)
    assert {constant.rate(step) for step in range(constant.steps)} == {1e-4}
    assert Schedule().tuned().rate(500) == pytest.approx(0.1 * Schedule().rate(500))


def test_both_optimisers_step(images, tmp_path):
    schedule = replace(SCHEDULE, optimiser="adam", betas=(0.9, 0.99), average=0.0, crops=2)
    stages = spn_ien.stages(replace(SETTINGS, spn=schedule))[:1]
    first = train(stages, images, tmp_path / "a", augmentation=Augmentation())
    assert all(torch.isfinite(w).all() for w in weights(first).values())


def test_the_loss_that_is_told_is_known_from_the_first_step_and_after_a_resumption(tmp_path):
    path = tmp_path / "spn.csv"
    first = Curve(path, 0)
    for step in range(60):
        first.add(step, 2.0 if step < 50 else 1.0)
        assert first.recent == 2.0
    first.flush()
    assert Curve(path, 60).recent == 2.0
    other = Curve(tmp_path / "ien.csv", 0)
    other.add(0, 3.0)
    other.add(1, 1.0)
    assert other.recent == 2.0
