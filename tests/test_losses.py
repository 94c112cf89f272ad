import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.losses import discriminative_loss, partial_cross_entropy
from wsiseg.networks.coordinates import add_anchor


def published(embedding, instances, background, alpha, gamma, delta_intra=0.5, delta_inter=3.0):
    """Eq. 1 of Liu et al. (2022) in loops, with squared hinges."""
    present = [c for c in np.unique(instances) if c > 0]
    pixels = {c: embedding[:, instances == c].T for c in present}
    mean = {c: pixels[c].mean(0) for c in present}
    count = len(present)
    intra = inter = 0.0
    for c in present:
        pull = np.maximum(0, np.linalg.norm(pixels[c] - mean[c], axis=1) - delta_intra) ** 2
        intra += (alpha if c == background else 1) * pull.mean()
    for a in present:
        for b in present:
            if a != b and background not in (a, b):
                inter += max(0, delta_inter - np.linalg.norm(mean[a] - mean[b])) ** 2
        if a != background and background in present:
            inter += 2 * alpha * max(0, delta_inter - np.linalg.norm(mean[a] - mean[background])) ** 2
    length = sum(np.linalg.norm(m) for m in mean.values())
    return intra / count + inter / (count * max(1, count - 1)) + gamma / count * length


def loss_of(embedding, instances, background=None, **options):
    """The loss of one image: (D, H, W) embeddings, (H, W) instances, the background's number."""
    inside = instances > 0
    return discriminative_loss(
        embedding[:, inside].T,
        instances[inside],
        background=None if background is None else instances[inside] == background,
        **options,
    )


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 0.5]))
def test_equals_the_equation_in_loops(seed, with_background, alpha):
    rng = np.random.default_rng(seed)
    embedding = rng.normal(0, 2, (4, 6, 7))
    instances = rng.integers(0, 5, (6, 7))
    background = 4 if with_background and (instances == 4).any() else None
    if not (instances > 0).any():
        return
    got = loss_of(torch.tensor(embedding), torch.tensor(instances), background, alpha=alpha, gamma=0.001)
    assert float(got) == pytest.approx(published(embedding, instances, background, alpha, 0.001), rel=1e-5)


def test_no_instance_costs_nothing_and_has_a_gradient():
    embedding = torch.randn(3, 4, 4, requires_grad=True)
    loss = loss_of(embedding, torch.zeros(4, 4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() == 0


def test_anchored_embeddings_of_distant_nuclei_are_apart_before_anything_is_learned():
    instances = torch.zeros(64, 64, dtype=torch.long)
    instances[10:12, 10:12], instances[10:12, 40:42] = 1, 2
    y, x = torch.nonzero(instances, as_tuple=True)
    plain, numbers = torch.zeros(len(y), 5), instances[y, x]
    anchored = add_anchor(plain, torch.stack([y, x], dim=1), 0.15)
    assert discriminative_loss(anchored, numbers, gamma=0.0).item() == 0
    assert discriminative_loss(plain, numbers, gamma=0.0).item() == pytest.approx(9.0, rel=1e-4)


@given(st.integers(0, 10**6), st.booleans())
def test_a_batch_is_the_mean_of_its_images(seed, per_pair):
    rng = np.random.default_rng(seed)
    embedding = torch.tensor(rng.normal(0, 2, (3, 4, 5, 6)))
    instances = torch.tensor(rng.integers(0, 4, (3, 5, 6)) * rng.integers(0, 2, (3, 1, 1)))
    image, y, x = torch.nonzero(instances, as_tuple=True)
    last = instances[image, y, x] == instances.amax(dim=(1, 2))[image]
    options = {"alpha": 0.5, "gamma": 0.1, "per_pair": per_pair}
    together = discriminative_loss(
        embedding[image, :, y, x], instances[image, y, x], image=image, images=3, background=last, **options
    )
    alone = [loss_of(e, i, int(i.max()), **options).item() for e, i in zip(embedding, instances, strict=True)]
    assert together.item() == pytest.approx(np.mean(alone), rel=1e-6)


def test_partial_cross_entropy_looks_at_labelled_pixels_only():
    logits = torch.tensor([[[0.0, 5.0, -5.0]]])
    assert partial_cross_entropy(logits, torch.tensor([[[2, 0, 0]]])).item() == pytest.approx(np.log(2))
    assert partial_cross_entropy(logits, torch.tensor([[[0, 2, 1]]])).item() == pytest.approx(
        0.0067, abs=1e-4
    )
    assert partial_cross_entropy(logits, torch.zeros(1, 1, 3, dtype=torch.long)).item() == 0
