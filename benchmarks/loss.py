"""What the discriminative loss costs beside the network's forward and backward pass, on real crops.

    python benchmarks/loss.py --data FOLDER [--threads 2] [--steps 10] [--json]

A batch of 16 crops of 224 px of MultiOrgan training images with their true instances; the half-width IEN. The median
of the steps is told, as a share.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from wsiseg.augment import Augmentation, augmented_crop
from wsiseg.recipes import spn_ien
from wsiseg.recipes._spn_ien_losses import instance_loss
from wsiseg.samples import read_samples, read_split


def main() -> None:
    """Time both, print the share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, marks = batch(options.data / "multiorgan")
    settings = spn_ien.Settings()
    network = spn_ien.networks(settings)["ien"]()
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stub lacks it
    passes, losses = [], []
    for step in range(options.steps + 2):  # the first two warm up
        rng = np.random.default_rng(step)
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            given = network(images)
        forward = time.perf_counter() - began
        # The loss alone, down to the gradient of what the network gave.
        leaf = given.detach().requires_grad_()
        began = time.perf_counter()
        value = instance_loss(settings, lambda _, out=leaf: out, images, marks, rng)  # type: ignore[misc, arg-type]
        value.backward()
        losses.append(time.perf_counter() - began)
        began = time.perf_counter()
        given.backward(leaf.grad)
        passes.append(forward + time.perf_counter() - began)
    share = median(losses[2:]) / median(passes[2:])
    row = {
        "loss_share": round(share, 4),
        "loss_seconds": round(median(losses[2:]), 4),
        "pass_seconds": round(median(passes[2:]), 4),
        "instances": int(sum(len(mark.unique()) - 1 for mark in marks)),
    }
    if options.json:
        print(json.dumps(row))
    else:
        print(
            f"loss {row['loss_seconds']:.3f} s, forward and backward {row['pass_seconds']:.3f} s: {share:.1%} "
            f"({row['instances']} instances in 16 crops)"
        )


def batch(root: Path) -> tuple[Tensor, Tensor]:
    """16 crops (16, 3, 224, 224) and their instances (16, 1, 224, 224)."""
    samples = read_samples(root, read_split(root, "train"), from_masks=True)
    rng = np.random.default_rng(0)
    crops = []
    for which in rng.integers(0, len(samples), 16):
        sample = samples[which]
        assert sample.labels is not None
        crops.append(
            augmented_crop(sample.image, sample.labels[None], Augmentation(), size=224, background=0, rng=rng)
        )
    images = torch.stack([crop for crop, _ in crops]).to(memory_format=torch.channels_last)
    return images, torch.stack([mark for _, mark in crops])


if __name__ == "__main__":
    main()
