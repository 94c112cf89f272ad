"""What SPN and IEN say of tiles, and how that becomes nuclei (Liu et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wsiseg.ambiguity import ambiguous as hard_to_tell
from wsiseg.boundaries import edge_strength, settled
from wsiseg.cluster import cluster_anchored, cluster_free
from wsiseg.geometry import Rect
from wsiseg.halos import without_halos
from wsiseg.instances import instances, likely, mean_embeddings, plausible, without_background
from wsiseg.maps import Maps
from wsiseg.networks.coordinates import bounded_halves
from wsiseg.networks.forward import run
from wsiseg.recipes._patches import embed_mosaic, paste
from wsiseg.recipes._spn_ien_losses import embed

if TYPE_CHECKING:
    from wsiseg.recipes.spn_ien import Settings


def maps(
    trained: Mapping[str, nn.Module],
    settings: Settings,
    images: Tensor,
    origins: Sequence[tuple[int, int]],
) -> list[Maps]:
    """Maps of each of `images` (B, 3, H, W), whose first pixels lie at `origins` in the plan."""
    network = partial(run, trained["ien"])
    if settings.shared:
        outputs = network(images)
        both = outputs[:, :1].sigmoid(), bounded_halves(outputs[:, 1:], settings.radius)
        return [Maps(p, e) for p, e in zip(*(each.cpu().numpy() for each in both), strict=True)]
    prob = run(trained["spn"], images).sigmoid().cpu().numpy()
    embeddings: Iterable[NDArray[np.float16]]
    if settings.coordinates == "patch":
        embeddings = [
            embed_mosaic(lambda part: embed(settings, network, part, np.zeros((len(part), 2))), i)
            for i in images
        ]
    else:
        raw = embed(settings, network, images, np.array(origins))
        halves = bounded_halves(raw, settings.radius) if settings.coordinates == "output" else raw.half()
        embeddings = halves.cpu().numpy()
    return [Maps(p, e) for p, e in zip(prob, embeddings, strict=True)]


def group(
    tile: Maps,
    settings: Settings,
    frame: Rect,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Clusters of the embedding over the foreground, as connected nuclei whose outlines settle on the image's edges.

    Returns
    -------
    labels : (H, W) int32    1..n without gaps
    embedding : (n, D) float32 in `output` form, else None: only there do tiles agree
    """
    least = settings.min_area if min_area is None else min_area
    foreground = tile.prob[0] >= (settings.threshold if threshold is None else threshold)
    labels = _instances(tile, settings, frame, foreground, least, device)
    if tile.red is not None:
        if any(settings.settle):
            inner, outer = settings.settle
            strength = edge_strength(tile.red)
            labels = without_halos(labels, tile.red, strength, least_edge=settings.least_edge)
            labels = settled(labels, strength, inner=inner, outer=outer, sigma=settings.smooth)
        labels = plausible(labels, tile.red, min_area=least, least_density=settings.least_density)
    if settings.coordinates != "output" or tile.embedding is None:
        return labels, None
    return labels, mean_embeddings(tile.embedding, labels, int(labels.max(initial=0)))


def _instances(
    tile: Maps, settings: Settings, frame: Rect, foreground: NDArray[np.bool_], least: int, device: str
) -> NDArray[np.int32]:
    """The nuclei where T_0 and the clusters have them."""
    assert tile.embedding is not None
    prob, embedding = tile.prob[0], tile.embedding
    if settings.coordinates == "output":
        clusters = cluster_anchored(
            embedding,
            foreground,
            origin=(frame.y0, frame.x0),
            scale=settings.scale,
            bandwidth=settings.bandwidth,
            device=device,
        )
        return likely(instances(clusters, min_area=least), prob, settings.least_score)
    free = partial(_free_instances, settings, least, device)
    if settings.coordinates == "input":
        return free(embedding, foreground, prob)
    return paste(
        foreground.shape, lambda here, there: free(embedding[:, *there], foreground[here], prob[here])
    )


def ambiguous(
    tile: Maps, settings: Settings, labels: NDArray[np.integer], count: int
) -> NDArray[np.bool_] | None:
    """(count,) which of the nuclei 1..count had clusters that were hard to tell apart; in `output` form alone."""
    if settings.coordinates != "output" or tile.embedding is None:
        return None
    return hard_to_tell(tile.embedding, labels, count, scale=settings.scale, bandwidth=settings.bandwidth)


def _free_instances(
    settings: Settings,
    min_area: int,
    device: str,
    embedding: NDArray[np.floating],
    foreground: NDArray[np.bool_],
    prob: NDArray[np.floating],
) -> NDArray[np.int32]:
    """Nuclei where the embedding holds the background as one more cluster."""
    clusters = cluster_free(embedding, foreground, bandwidth=settings.bandwidth, device=device)
    nuclei = without_background(clusters, embedding, prob, sure=settings.background)
    return instances(nuclei, min_area=min_area)
