import numpy as np
import pytest
import torch

from wsiseg.dense_crf import gaussian_filter, pairwise_energy, pixel_features

BANDWIDTHS = {"sigma_pq": 9.0, "sigma_rgb": 0.1}


def energy_of_pairs(prob, images, *, sigma_pq, sigma_rgb):
    """Eq. 8-10 as they are written: the affinities of all pairs of pixels, in float64."""
    each = []
    for y, image in zip(prob.double(), images.double(), strict=True):
        at = torch.stack(torch.meshgrid(*map(torch.arange, y.shape), indexing="ij"), dim=-1).reshape(-1, 2)
        colour = image.flatten(1).T
        apart = (at[:, None] - at).square().sum(-1) / sigma_pq**2
        unlike = (colour[:, None] - colour).square().sum(-1) / sigma_rgb**2
        affinity = torch.exp(-(apart + unlike) / 2)
        y = y.flatten()
        each.append((y[:, None] * (1 - y) * affinity).sum() / len(y))
    return torch.stack(each).mean()


def tissue(seed, side=40):
    """A probability and an image: blue discs, none of one shade, on pink, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centres, shades = rng.uniform(0, side, (5, 2)), rng.uniform(0.7, 1.3, 5)
    image = np.broadcast_to(np.array([0.85, 0.68, 0.82])[:, None, None], (3, side, side)).copy()
    nucleus = np.zeros((side, side))
    for (cy, cx), shade in zip(centres, shades, strict=True):
        disc = np.hypot(y - cy, x - cx) < 7
        image[:, disc] = np.array([0.38, 0.27, 0.52])[:, None] * shade
        nucleus[disc] = 1
    image += rng.normal(0, 0.03, image.shape)
    prob = np.clip(0.8 * nucleus + 0.1 + rng.normal(0, 0.05, nucleus.shape), 0, 1)
    return torch.from_numpy(prob)[None].float(), torch.from_numpy(image.clip(0, 1))[None].float()


def with_gradient(energy, prob, images, bandwidths):
    y = prob.clone().requires_grad_()
    value = energy(y, images, **bandwidths)
    value.backward()
    return value.item(), y.grad


@pytest.mark.parametrize(
    "bandwidths", [BANDWIDTHS, {"sigma_pq": 9.0, "sigma_rgb": 0.2}, {"sigma_pq": 5.0, "sigma_rgb": 0.15}]
)
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_those_of_the_sum_over_all_pairs(seed, bandwidths):
    prob, images = tissue(seed)
    value, slope = with_gradient(pairwise_energy, prob, images, bandwidths)
    expected, direction = with_gradient(energy_of_pairs, prob, images, bandwidths)
    assert value == pytest.approx(expected, rel=0.05)
    assert (slope - direction).norm() < 0.08 * direction.norm()
    assert torch.corrcoef(torch.stack([slope.flatten(), direction.flatten()]))[0, 1] > 0.995


def test_the_gradient_is_that_of_the_value_itself():
    prob, images = tissue(3, side=24)
    _, slope = with_gradient(pairwise_energy, prob, images, BANDWIDTHS)
    way = torch.randn(prob.shape, generator=torch.Generator().manual_seed(0))
    ahead, behind = (pairwise_energy(prob + step * way, images, **BANDWIDTHS) for step in (0.01, -0.01))
    # The energy is quadratic: the difference of two values is exact but for rounding.
    assert (slope * way).sum().item() == pytest.approx((ahead - behind).item() / 0.02, rel=1e-3)


def test_images_of_a_batch_do_not_meet():
    one, other = tissue(0, side=24), tissue(1, side=24)
    both = pairwise_energy(torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]]), **BANDWIDTHS)
    alone = [pairwise_energy(*each, **BANDWIDTHS) for each in (one, other)]
    assert both.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_outlines_along_edges_cost_less_than_across_them():
    prob, images = tissue(4)
    shifted = torch.roll(prob, 6, dims=2)
    assert pairwise_energy(prob, images, **BANDWIDTHS) < 0.8 * pairwise_energy(shifted, images, **BANDWIDTHS)


def test_an_even_image_is_no_special_case():
    prob = torch.full((1, 32, 32), 0.5)
    value = pairwise_energy(prob, torch.full((1, 3, 32, 32), 0.7), **BANDWIDTHS)
    expected = energy_of_pairs(prob, torch.full((1, 3, 32, 32), 0.7), **BANDWIDTHS)
    assert value.item() == pytest.approx(expected.item(), rel=0.02)


def test_low_precision_around_it_changes_nothing():
    prob, images = tissue(5, side=24)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pairwise_energy(prob, images, **BANDWIDTHS)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pairwise_energy(prob, images, **BANDWIDTHS).item()


def test_the_filter_sums_neighbours_under_a_gaussian():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.uniform(0, 12, (600, 2)))
    values = torch.from_numpy(rng.random((3, 600)))
    affinity = torch.exp(-0.5 * torch.cdist(features, features).square())
    sums = gaussian_filter(values, features, (0.5, 0.5))
    assert sums.shape == (3, 600)
    assert ((sums - values @ affinity).abs() / (values @ affinity)).max() < 0.05


def test_turned_colours_are_as_far_apart_as_before():
    _, images = tissue(6, side=8)
    features = pixel_features(images[0], 9.0, 0.1)
    colour = images[0].flatten(1).T / 0.1
    assert torch.allclose(torch.pdist(features[:, 2:]), torch.pdist(colour), atol=1e-4)
    assert torch.allclose(features[9, :2], torch.tensor([1 / 9, 1 / 9]))
