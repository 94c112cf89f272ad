"""Is the mean-shift fast, and is it the mean-shift? Held against scikit-learn's, seeded from every pixel.

    python benchmarks/meanshift.py [--images IMAGE ...] [--size 224] [--patches 12] [--json]

Prints how many times faster it is and the adjusted Rand index of the two results, median and least over the
patches. Without images, embeddings are drawn: ellipses whose offsets point most of the way to their centres. With
some (H&E, at the model's microns per pixel) they are a model's own, where clusters are less clear, patches are those
with most foreground, and each whole image is held against the same mean-shift with every pixel a point and a seed.
Everything runs on one thread. scikit-learn needs minutes for a patch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import MeanShift
from sklearn.metrics import adjusted_rand_score

from wsiseg import cluster
from wsiseg.instances import instances
from wsiseg.models import DEFAULT, ModelRef, find_model
from wsiseg.predict import Model, load

Patch = tuple[NDArray[np.floating], NDArray[np.bool_]]
"""Offsets (D, H, W) without their anchor, and the foreground (H, W)."""


def main() -> None:
    """Run and print."""
    options = arguments()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = None if not options.images else load(ModelRef("spn_ien", str(find_model(options.model)), "cpu"))
    if model is None:
        scale, bandwidth = 0.15, 1.5
        wholes = [draw(2 * options.size, rng)]
        patches = [draw(options.size, rng) for _ in range(options.patches)]
    else:
        scale, bandwidth = model.settings.scale, model.settings.bandwidth
        wholes = [seen(model, image) for image in options.images]
        each = -(-options.patches // len(wholes))
        patches = [p for whole in wholes for p in cut(*whole, options.size, each)][: options.patches]
    whole = [against_every_pixel(each, scale, bandwidth) for each in wholes]
    rows = []
    for number, patch in enumerate(patches):
        rows.append(compare(patch, scale, bandwidth))
        print(f"patch {number + 1} of {len(patches)}: {rows[-1]}", file=sys.stderr, flush=True)
    times, ari = np.array(rows).T
    found = {
        "speedup": round(float(np.median(times)), 1),
        "speedup_least": round(float(times.min()), 1),
        "ari": round(float(np.median(ari)), 4),
        "ari_least": round(float(ari.min()), 4),
        "whole_ari": round(float(np.median(whole)), 4),
        "whole_ari_least": round(float(min(whole)), 4),
        "patches": len(rows),
        "foreground": int(np.median([mask.sum() for _, mask in patches])),
    }
    if options.json:
        print(json.dumps(found))
        return
    print(
        "| patches | foreground, px | times faster, median (least) | ARI, median (least) | whole images, ARI |"
    )
    print("|---|---|---|---|---|")
    print(
        f"| {len(rows)} | {found['foreground']:,} | {found['speedup']:.0f} ({found['speedup_least']:.0f}) "
        f"| {found['ari']:.4f} ({found['ari_least']:.4f}) | {found['whole_ari']:.4f} ({found['whole_ari_least']:.4f}) |"
    )


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="embed these instead of drawing")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--size", type=int, default=224, help="side of a patch, pixels")
    parser.add_argument("--patches", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def compare(patch: Patch, scale: float, bandwidth: float) -> tuple[float, float]:
    """How many times faster than scikit-learn ours is, from embeddings to nuclei, and the adjusted Rand index."""
    offsets, mask = patch
    embedded = offsets[:, mask].T.astype(np.float64)
    embedded[:, :2] += scale * np.argwhere(mask)
    began = time.perf_counter()
    reference = MeanShift(bandwidth=bandwidth).fit(embedded).labels_
    theirs = time.perf_counter() - began
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        found = cluster.cluster_anchored(offsets, mask, origin=(0, 0), scale=scale, bandwidth=bandwidth)
        instances(found, min_area=30)
        seconds.append(time.perf_counter() - began)
    return round(theirs / min(seconds), 1), round(adjusted_rand_score(reference, found[mask]), 4)


def against_every_pixel(whole: Patch, scale: float, bandwidth: float) -> float:
    """The adjusted Rand index against the same mean-shift with every pixel a point and a seed."""
    offsets, mask = whole
    ours = partial(cluster.cluster_anchored, offsets, mask, origin=(0, 0), scale=scale, bandwidth=bandwidth)
    return float(adjusted_rand_score(ours(cell=(1, 1), seed=(1, 1))[mask], ours()[mask]))


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


def seen(model: Model, path: Path) -> Patch:
    """What a model with anchored embeddings says of an image, no more than 1,280 pixels a side."""
    image = np.asarray(Image.open(path).convert("RGB"))[:1280, :1280]
    maps, inside = model.predict_whole(image)
    assert maps.embedding is not None
    return maps.embedding[:, *inside], maps.prob[0][inside] >= model.settings.threshold


def cut(embedding: NDArray[np.floating], mask: NDArray[np.bool_], size: int, count: int) -> list[Patch]:
    """The `count` patches of an image with most foreground, of those on a grid."""
    corners = [
        (y, x)
        for y in range(0, mask.shape[0] - size + 1, size)
        for x in range(0, mask.shape[1] - size + 1, size)
    ]
    windows = [(slice(y, y + size), slice(x, x + size)) for y, x in corners]
    windows.sort(key=lambda here: -mask[here].sum())
    return [(np.ascontiguousarray(embedding[:, *here]), mask[here]) for here in windows[:count]]


if __name__ == "__main__":
    main()
