import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from wsiseg.adipose import add_fat
from wsiseg.augment import Augmentation, _grid, _mean_of_five, augmented_crop, random_crop, vary_colour
from wsiseg.debris import add_debris


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)


@pytest.mark.parametrize("elastic", [0.0, 4.0])
def test_image_and_targets_move_together(elastic):
    """Where the target is a copy of the image, the crop's target is a copy of the crop."""
    y, x = np.mgrid[:300, :300]
    value = ((np.sin(y / 9) + np.cos(x / 7)) * 60 + 128).astype(np.uint8)
    image = np.repeat(value[..., None], 3, axis=2)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        crop, marks = random_crop(
            image, value[None].astype(int), size=96, rng=rng, zoom=(0.8, 1.25), elastic=elastic
        )
        assert (crop[0] * 255 - marks[0]).abs().max() < 25


@pytest.mark.parametrize("elastic", [3.0, 6.0])
def test_an_elastic_crop_is_bent_smoothly_and_by_as_much_as_asked_for(elastic):
    """Where the targets hold row and column of each pixel, the crop tells how far its pixels were moved."""
    where, image = np.stack(np.mgrid[:400, :400]), np.zeros((400, 400, 3), np.uint8)

    def crop(bent):
        rng = np.random.default_rng(3)
        return random_crop(image, where, size=128, rng=rng, zoom=(1, 1), elastic=bent)[1].double()

    moved = crop(elastic) - crop(0.0)
    moved -= moved.mean((1, 2), keepdim=True)  # a bent crop keeps farther from the border, all of it
    assert moved.square().mean().sqrt() == pytest.approx(elastic, rel=0.2)
    assert moved.diff(dim=2).abs().mean() < 0.15 * elastic


def test_a_stretched_crop_is_longer_one_way_by_as_much_as_asked_for_and_keeps_areas():
    """Where the targets hold row and column of each pixel, the crop tells how far apart its pixels were."""
    where, image = np.stack(np.mgrid[:600, :600]) * 16, np.zeros((600, 600, 3), np.uint8)
    for stretch in (1.0, 3.0):
        ratios = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            marks = random_crop(image, where, size=96, rng=rng, zoom=(1, 1), stretch=stretch)[1].double() / 16
            steps = [(marks[:, -1, 48] - marks[:, 0, 48]) / 95, (marks[:, 48, -1] - marks[:, 48, 0]) / 95]
            long, short = torch.linalg.svdvals(torch.stack(steps))
            assert long * short == pytest.approx(1, rel=0.02)
            ratios.append(float(long / short))
        # A shear of at most 0.15 draws out as well.
        assert stretch / 1.4 < max(ratios) < stretch * 1.2
    assert min(ratios) < 1.6
    with pytest.raises(ValueError, match="1, which is none, or more"):
        Augmentation(stretch=0.5)


def test_outside_the_image_nothing_is_labelled():
    crop, marks = random_crop(
        np.zeros((40, 40, 3), np.uint8),
        np.ones((1, 40, 40), int),
        size=96,
        rng=np.random.default_rng(0),
        zoom=(1, 1),
    )
    assert crop.shape == (3, 96, 96)
    assert set(marks.unique().tolist()) == {0, 1}


def test_the_same_seed_gives_the_same_crop(image):
    targets = np.ones((2, 300, 280), int)
    made = [
        augmented_crop(image, targets, Augmentation(), size=64, background=1, rng=np.random.default_rng(7))
        for _ in range(2)
    ]
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])


def test_colours_stay_in_range(image):
    pixels = torch.from_numpy(image[:64, :64].transpose(2, 0, 1)).float() / 255
    for seed in range(20):
        varied = vary_colour(pixels, Augmentation(), np.random.default_rng(seed))
        assert varied.shape == pixels.shape
        assert 0 <= varied.min() <= varied.max() <= 1


def test_debris_is_background_and_leaves_the_rest():
    pixels, targets = torch.full((3, 96, 96), 0.5), torch.full((1, 96, 96), 2)
    changed = False
    for seed in range(10):
        drawn, marks = add_debris(pixels, targets, background=1, rng=np.random.default_rng(seed))
        untouched = torch.from_numpy(np.asarray(marks[0] == 2))
        inner = torch.nn.functional.avg_pool2d(untouched[None].float(), 9, 1, 4)[0] == 1
        assert torch.allclose(drawn[:, inner], pixels[:, inner], atol=1e-3)
        changed |= bool((marks == 1).any())
    assert changed


def test_fat_takes_nuclei_whole_or_leaves_them():
    """Nuclei on strands keep every pixel, the others none; glass is background, and what is not glass is as it was."""
    y, x = np.mgrid[:224, :224]
    nuclei = np.zeros((224, 224), np.int64)
    for number, (row, column) in enumerate(np.ndindex(7, 7), 2):
        nuclei[np.hypot(y - 16 - 32 * row, x - 16 - 32 * column) < 8] = number
    targets = torch.from_numpy(np.stack([np.where(nuclei > 0, 2, 1), np.where(nuclei > 0, nuclei, 0)]))
    pixels = torch.from_numpy(np.where(nuclei > 0, 0.3, 0.6).astype(np.float32)).expand(3, -1, -1)
    kept, emptied = [], []
    for seed in range(12):
        drawn, marks = add_fat(pixels, targets, background=1, rng=np.random.default_rng(seed))
        assert drawn.shape == pixels.shape
        assert 0 <= drawn.min() <= drawn.max() <= 1
        left = np.bincount(nuclei[(marks[0] == 2).numpy()], minlength=51)[2:]
        assert set(left / np.bincount(nuclei.ravel())[2:]) <= {0.0, 1.0}
        glass = (marks[1] == 1).numpy()
        assert (marks[0].numpy()[glass] == 1).all()
        inside = ndimage.binary_erosion(glass, iterations=5)
        assert (drawn.numpy()[:, inside] > 0.75).all()
        far = ndimage.binary_erosion(~glass, iterations=6, border_value=1)
        assert np.allclose(drawn.numpy()[:, far], pixels.numpy()[:, far], atol=1e-3)
        kept.append(left.astype(bool).mean())
        emptied.append(glass.mean())
    assert 0.2 < np.mean(kept) < 0.9
    assert 0.2 < np.mean(emptied) < 0.9


def test_as_many_crops_are_emptied_as_asked_for(image):
    for share, emptied in ((0.0, 0), (1.0, 8), (0.5, pytest.approx(4, abs=3))):
        settings = Augmentation(fat=share, debris=0)
        unknown = np.zeros((1, 300, 280), np.int64)
        crops = [
            augmented_crop(image, unknown, settings, size=96, background=1, rng=np.random.default_rng(seed))
            for seed in range(8)
        ]
        assert sum(bool((marks == 1).any()) for _, marks in crops) == emptied


def test_the_mean_of_five_is_what_pooling_gives():
    pixels = torch.rand(3, 17, 23)
    pooled = F.avg_pool2d(pixels[None], 5, 1, padding=2, count_include_pad=False)[0]
    assert torch.allclose(_mean_of_five(pixels), pooled, atol=1e-6)


def test_a_crop_looks_where_its_matrix_says():
    matrix, centre, shape = np.array([[0.8, 0.3], [-0.4, 1.1]]), np.array([20.0, 31.0]), (50, 70)
    grid = _grid(matrix, centre, 12, shape)
    assert grid.shape == (1, 12, 12, 2)
    for row, column in ((0, 0), (3, 10), (11, 11)):
        y, x = matrix @ (np.array([row, column]) - 5.5) + centre
        assert grid[0, row, column].tolist() == pytest.approx([2 * x / 70 - 1, 2 * y / 50 - 1], abs=1e-6)
