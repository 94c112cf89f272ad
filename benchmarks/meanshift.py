"""Is the mean-shift fast, and is it the mean-shift? Held against scikit-learn's, seeded from every pixel.

    python benchmarks/meanshift.py [--image IMAGE] [--size 112] [--patches 8] [--json]

Prints how many times faster it is, patch by patch summed, and the adjusted Rand index of the two results,
mean and least. Without an image, embeddings are drawn: ellipses whose offsets point most of the way to their
centres. With one (H&E, at the model's microns per pixel) they are a model's own, where clusters are less
clear. `exact` is the same code with every pixel a point and a seed: what it lacks is owed to blocks, what
`ari` lacks beyond that to taking 1 pixel in 8 as a point and 1 in 32 as a seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score

from wsiseg import cluster
from wsiseg.models import ModelRef, find_model
from wsiseg.predict import load

Patch = tuple[NDArray[np.floating], NDArray[np.bool_]]
"""Offsets (D, H, W) without their anchor, and the foreground (H, W)."""


def main() -> None:
    """Run and print."""
    options = arguments()
    torch.set_num_threads(1)
    scale, bandwidth, patches = drawn_patches(options) if options.image is None else seen_patches(options)
    rows = np.array([compare(patch, scale, bandwidth) for patch in patches])
    theirs, ours, ari, exact = rows.T
    found = {
        "speedup": theirs.sum() / ours.sum(),
        "ari": ari.mean(),
        "ari_least": ari.min(),
        "exact": exact.mean(),
        "exact_least": exact.min(),
        "patches": len(rows),
    }
    if options.json:
        print(json.dumps(found))
        return
    print("| patches | times faster | ARI, mean | least | exact, mean | least |\n|---|---|---|---|---|---|")
    print(
        f"| {len(rows)} | {found['speedup']:.0f} | {ari.mean():.3f} | {ari.min():.3f} "
        f"| {exact.mean():.3f} | {exact.min():.3f} |"
    )


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="embed this instead of drawing")
    parser.add_argument("--model", default="he-points")
    parser.add_argument("--size", type=int, default=112, help="side of a patch, pixels")
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def compare(patch: Patch, scale: float, bandwidth: float) -> tuple[float, float, float, float]:
    """Seconds of scikit-learn and of ours, adjusted Rand index of ours, and of ours with every pixel."""
    offsets, mask = patch
    ours = partial(cluster.cluster_anchored, offsets, mask, origin=(0, 0), scale=scale, bandwidth=bandwidth)
    embedded = offsets[:, mask].T.astype(np.float64)
    embedded[:, :2] += scale * np.argwhere(mask)
    began = time.perf_counter()
    reference = MeanShift(bandwidth=bandwidth).fit(embedded).labels_
    middle = time.perf_counter()
    found = ours()
    ended = time.perf_counter()
    whole = ours(steps=((1, 1), (1, 1)))
    scores = (adjusted_rand_score(reference, each[mask]) for each in (found, whole))
    return middle - began, ended - middle, *scores


def drawn_patches(options: argparse.Namespace) -> tuple[float, float, Iterator[Patch]]:
    """Scale, bandwidth and patches of nuclei that are drawn."""
    rng = np.random.default_rng(0)
    return 0.15, 1.5, (draw(options.size, rng) for _ in range(options.patches))


def draw(size: int, rng: np.random.Generator, *, dim: int = 16, noise: float = 0.12) -> Patch:
    """Ellipses about 22 pixels apart, many of them touching, and their noisy offsets."""
    y, x = np.mgrid[:size, :size].astype(float)
    labels, spots = np.zeros((size, size), int), np.mgrid[11:size:22, 11:size:22].reshape(2, -1).T
    centres = np.concatenate([[[0.0, 0.0]], spots + rng.uniform(-4, 4, spots.shape)])
    for number, (cy, cx) in enumerate(centres[1:], start=1):
        a, b = rng.uniform(8, 13, 2)
        labels[(((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1) & (labels == 0)] = number
    offsets = rng.normal(0, noise, (dim, size, size))
    offsets[:2] += 0.8 * 0.15 * (centres[labels].transpose(2, 0, 1) - np.stack([y, x]))
    offsets[2:] += rng.normal(0, 0.5, (len(centres), dim - 2))[labels].transpose(2, 0, 1)
    return offsets.astype(np.float16), labels > 0


def seen_patches(options: argparse.Namespace) -> tuple[float, float, Iterator[Patch]]:
    """Scale, bandwidth and patches of what a model with anchored embeddings says of an image."""
    model = load(ModelRef("spn_ien", str(find_model(options.model)), "cpu"))
    image = np.asarray(Image.open(options.image).convert("RGB"))[:1280, :1280]
    maps, inside = model.predict_whole(image)
    assert maps.embedding is not None
    embedding, mask = maps.embedding[:, *inside], maps.prob[0][inside] >= model.settings.threshold
    return (
        model.settings.scale,
        model.settings.bandwidth,
        cut(embedding, mask, options.size, options.patches),
    )


def cut(embedding: NDArray[np.floating], mask: NDArray[np.bool_], size: int, count: int) -> Iterator[Patch]:
    """Up to `count` patches, evenly spread over the image, with at least a tenth of foreground."""
    corners = [
        (y, x)
        for y in range(0, mask.shape[0] - size + 1, size)
        for x in range(0, mask.shape[1] - size + 1, size)
    ]
    full = [c for c in corners if mask[c[0] : c[0] + size, c[1] : c[1] + size].mean() >= 0.1]
    for y, x in full[:: max(1, len(full) // count)][:count]:
        here = (slice(y, y + size), slice(x, x + size))
        yield np.ascontiguousarray(embedding[:, *here]), mask[here]


if __name__ == "__main__":
    main()
