"""What points teach the networks of SPN + IEN: semantic labels, refreshed ones, and instances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from wsiseg.boundaries import edge_strength, settled
from wsiseg.flips import views
from wsiseg.halos import without_halos
from wsiseg.networks.forward import pad_to_stride, run, to_tensor
from wsiseg.pseudo_labels import (
    BACKGROUND,
    NUCLEUS,
    UNLABELLED,
    cluster_labels,
    instance_labels,
    voronoi_cells,
    voronoi_labels,
)
from wsiseg.recipes._encodings import local_cluster_labels
from wsiseg.samples import Sample
from wsiseg.stages import Networks, OptionRanges, Options
from wsiseg.tracing import traced

OPTIONS: OptionRanges = {
    "colour_weight": (0.0, 10.0),
    "patch": (1.0, 10_000.0),
    "max_distance": (1.0, 500.0),
    "margin": (0.0, 100.0),
    "sigma": (1e-3, 1e6),
    "haematoxylin": (0.0, 10.0),
    "local": (0.0, 1.0),
    "trace": (0.0, 200.0),
    "doubt": (0.0, 1.0),
}
"""Of a data set, what its labels are made with: the least and the most that each may be (`semantic_targets`)."""
REFRESH_MARGIN = 0.1
"""Probabilities this near to the refreshed threshold teach nothing: there the first network was unsure."""
LIKELY = np.array([0.3, 0.0, 0.8], np.float32)
"""How likely a pixel is a nucleus's where k-means says nothing, background and nucleus."""
ALIKE = 0.3
"""Of the way from the density of the background to that of the nuclei, what is as dark as this may be a nucleus."""
KNOWN = 0.5
"""Of an image's points, the teacher must see this share; else it does not know such tissue, and teaches nothing of it."""


def semantic_targets(sample: Sample, options: Options, _: Networks) -> NDArray[np.int8]:
    """(2, H, W) int8: the cluster and the Voronoi labels of one image.

    The option `local` takes k-means of each Voronoi cell instead of the whole image's. With `trace`, the radius in
    pixels of a typical nucleus, k-means only says where nuclei may be: cluster labels are what is traced from the
    points along the edges of the image (`wsiseg.tracing`), and the rest. With `doubt` not all of the rest: what may be
    a nucleus by its density and was not clicked, such as one out of focus, is not labelled.

    Where every nucleus is clicked and no point is, all is background.
    """
    shape = sample.image.shape[:2]
    if not len(sample.points):
        empty = np.full((2, *shape), BACKGROUND, np.int8)
        return empty if sample.roi is None else empty * sample.roi
    max_distance = options.get("max_distance", 20.0)
    if options.get("local"):
        clusters = local_cluster_labels(
            sample.image, sample.points, max_distance=max_distance, roi=sample.roi
        )
    else:
        clusters = cluster_labels(
            sample.image,
            sample.points,
            colour_weight=options.get("colour_weight", 0.2),
            patch=int(options.get("patch", 60)),
            max_distance=max_distance,
            margin=options.get("margin", 0.0),
            sigma=options.get("sigma"),
            haematoxylin=options.get("haematoxylin", 0.0),
            roi=sample.roi,
        )
    if options.get("trace"):
        inside = traced_instances(sample, likely_nuclei(clusters), options) > 0
        clusters = np.where(inside, NUCLEUS, BACKGROUND).astype(np.int8)
    if options.get("doubt"):
        clusters = doubted(sample.image, clusters)
    labels = np.stack([clusters, voronoi_labels(sample.points, (shape[0], shape[1]))])
    labels = with_outlines(labels, sample)
    return labels if sample.roi is None else labels * sample.roi


def with_outlines(labels: NDArray[np.int8], sample: Sample) -> NDArray[np.int8]:
    """Cluster and Voronoi labels (2, H, W) with what is known where nuclei were outlined.

    Inside an outline is nucleus; the rest of such a nucleus's Voronoi cell is background in the cluster labels.
    """
    if sample.outlines is None:
        return labels
    shape = (labels.shape[1], labels.shape[2])
    inside, known = sample.outlines > 0, outlined(sample)[voronoi_cells(sample.points, shape)]
    cluster = np.where(inside, NUCLEUS, np.where(known, BACKGROUND, labels[0]))
    return np.stack([cluster, np.where(inside, NUCLEUS, labels[1])]).astype(np.int8)


def outlined(sample: Sample) -> NDArray[np.bool_]:
    """(N + 1,) whether the nucleus of this number, from 1, has an outline."""
    has = np.zeros(len(sample.points) + 1, bool)
    if sample.outlines is not None:
        has[np.unique(sample.outlines)] = True
    has[0] = False
    return has


def refreshed_targets(
    threshold: float,
    sample: Sample,
    options: Options,
    trained: Networks,
    *,
    settle: tuple[int, int] = (0, 0),
    smooth: float = 2.0,
    least_edge: float = 0.0,
    teacher: str = "spn_first",
) -> NDArray[np.int8]:
    """(2, H, W) int8: labels from what the first SPN, the `teacher`, sees and the points confirm, and the Voronoi labels.

    The first network has seen all images and so outlines a nucleus better than its own labels did, but it
    also finds what nobody clicked: that becomes background. Its probability is averaged over flips and
    turns of the image. Where outlines may `settle` on edges (`wsiseg.boundaries`) they do, and nuclei have no halos
    (`wsiseg.halos`); else what lies near the threshold is not labelled. The Voronoi cell of a point that it misses keeps
    its first labels: a click is there to teach a nucleus, not background. An image of whose points it misses more than
    half is of a tissue or a stain that it never saw: all of that keeps its first labels.

    With the option `trace` every point's nucleus is traced instead, and with `doubt` what may be one is not labelled,
    both as in `semantic_targets`.
    """
    shape = sample.image.shape[:2]
    if not len(sample.points):
        return semantic_targets(sample, {}, trained)
    seen = [
        view.upright(semantic_probability(trained[teacher], view.of(sample.image[None])[0]))
        for view in views(8)
    ]
    probability = np.mean(seen, axis=0)
    instances = instance_labels(probability, sample.points, foreground=threshold)
    missed = ~np.isin(np.arange(len(sample.points) + 1), instances)
    if missed[1:].mean() > 1 - KNOWN:
        return semantic_targets(sample, options, trained)
    refreshed = np.full(shape, BACKGROUND, np.int8)
    if options.get("trace"):
        refreshed[traced_instances(sample, probability, options) > 0] = NUCLEUS
    elif any(settle):
        inner, outer = settle
        red = np.ascontiguousarray(sample.image[..., 0])
        strength = edge_strength(red)
        instances = without_halos(instances, red, strength, least_edge=least_edge)
        refreshed[settled(instances, strength, inner=inner, outer=outer, sigma=smooth) > 0] = NUCLEUS
    else:
        refreshed[instances > 0] = NUCLEUS
        near = np.abs(probability - threshold) < REFRESH_MARGIN
        refreshed[near & ((instances > 0) | (probability < threshold))] = UNLABELLED
    if options.get("doubt"):
        refreshed = doubted(sample.image, refreshed)
    if missed[1:].any() and not options.get("trace"):  # what is traced has every point's nucleus
        cells = voronoi_cells(sample.points, (shape[0], shape[1]))
        first = semantic_targets(sample, options, trained)[0]
        refreshed = np.where(missed[cells], first, refreshed).astype(np.int8)
    labels = np.stack([refreshed, voronoi_labels(sample.points, (shape[0], shape[1]))])
    labels = with_outlines(labels, sample)
    return labels if sample.roi is None else labels * sample.roi


def likely_nuclei(clusters: NDArray[np.int8]) -> NDArray[np.float32]:
    """(H, W) probability of a nucleus that cluster labels stand for where tracing begins."""
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(LIKELY[clusters], 1.0)
    return blurred


def doubted(image: NDArray[np.uint8], labels: NDArray[np.int8]) -> NDArray[np.int8]:
    """Labels (H, W) of an image (H, W, 3) without the background that may be of a nucleus, by the density of theirs."""
    density = ndimage.gaussian_filter(-np.log((image[..., 0] + 1.0) / 256), 1.0)
    of_background, of_nuclei = density[labels == BACKGROUND], density[labels == NUCLEUS]
    if not len(of_background) or not len(of_nuclei):
        return labels
    pale, dark = np.median(of_background), np.median(of_nuclei)
    alike = density > pale + ALIKE * (dark - pale)
    return np.where((labels == BACKGROUND) & alike, UNLABELLED, labels).astype(np.int8)


def traced_instances(
    sample: Sample, probability: NDArray[np.floating], options: Options
) -> NDArray[np.int32]:
    """(H, W) int32: 1..N the points' nuclei, traced on the image (`wsiseg.tracing`)."""
    height, width = sample.image.shape[:2]
    red = np.ascontiguousarray(sample.image[..., 0])
    cells = voronoi_cells(sample.points, (height, width))
    return traced(red, sample.points, probability, cells, radius=options["trace"])


def instance_targets(
    foreground: float, background: float | None, sample: Sample, options: Options, trained: Networks
) -> NDArray[np.int32]:
    """(1, H, W) int32: the instances, and the background as one more where `background` is a number.

    With the option `trace` the instances are traced, as in `semantic_targets`.
    """
    probability = semantic_probability(trained["spn"], sample.image)
    labels = instance_labels(probability, sample.points, foreground=foreground, background=background)
    if options.get("trace") and len(sample.points):
        outlines = traced_instances(sample, probability, options)
        beside = np.where(labels > len(sample.points), labels, 0)
        labels = np.where(outlines > 0, outlines, beside).astype(np.int32)
    if sample.outlines is not None:
        guessed = np.append(~outlined(sample), True)[labels]  # the background's number comes after theirs
        labels = np.where(sample.outlines > 0, sample.outlines, labels * guessed).astype(np.int32)
    return (labels if sample.roi is None else labels * sample.roi)[None]


def semantic_probability(network: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) probability of a nucleus for a whole image of any size, mirrored at its borders."""
    padded, inside = pad_to_stride(image, margin=64)
    probability = run(network, to_tensor(padded[None]))[0, 0].sigmoid().cpu().numpy()
    return np.ascontiguousarray(probability[inside])
