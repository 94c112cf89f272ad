"""What the networks are taught where only points are known.

Voronoi labels and cluster labels (Qu et al. 2019, 2020, section IV-A; Liu et al. 2022, section 2.2), and
the instances that a trained semantic network and the points give together (Liu et al. 2022, section 2.2).

Label maps are (H, W) int8: 2 nucleus, 1 background, 0 not labelled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.measure import label as label_pieces
from skimage.morphology import disk
from skimage.segmentation import find_boundaries
from sklearn.cluster import KMeans

UNLABELLED, BACKGROUND, NUCLEUS = 0, 1, 2


def point_map(points: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.int32]:
    """(H, W) int32 map that holds the number 1..N of each point at its pixel, 0 elsewhere.

    Of two points in one pixel the later one stays.
    """
    numbers = np.zeros(shape, np.int32)
    at = np.clip(np.floor(points).astype(np.int64), 0, np.array(shape) - 1)
    numbers[at[:, 0], at[:, 1]] = np.arange(1, len(points) + 1)
    return numbers


def voronoi_cells(points: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.int32]:
    """(H, W) int32: the number 1..N of the point that is nearest to each pixel; 0 where there is no point.

    Examples
    --------
    >>> voronoi_cells(np.array([[0.5, 0.5], [0.5, 3.5]]), (1, 4)).tolist()
    [[1, 1, 2, 2]]
    """
    numbers = point_map(points, shape)
    if not len(points):
        return numbers
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    cells: NDArray[np.int32] = numbers[tuple(nearest)]
    return cells


def distance_to_points(points: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W) float64 distance of each pixel to the nearest point's pixel; infinite where there is none."""
    if not len(points):
        return np.full(shape, np.inf)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(point_map(points, shape) == 0)
    return distance


def voronoi_labels(
    points: NDArray[np.floating], shape: tuple[int, int], *, radius: int = 2
) -> NDArray[np.int8]:
    """Edges of the Voronoi cells are background, discs of `radius` pixels around the points are nuclei.

    Source: Qu et al. (2020), section IV-A.1.
    """
    labels = np.full(shape, UNLABELLED, np.int8)
    labels[find_boundaries(voronoi_cells(points, shape), mode="inner")] = BACKGROUND
    labels[distance_to_points(points, shape) <= radius] = NUCLEUS
    return labels


def adaptive_sigma(image: NDArray[np.uint8], points: NDArray[np.floating], *, patch: int) -> float:
    """Standard deviation of the colour differences between neighbours around the points of one image.

    Each pixel of the `patch` x `patch` pixels around each point is compared with its 9 x 9 neighbours.

    Returns
    -------
    float    in grey levels (0-255); at least 1, so that a flat image divides by no zero

    Source: Liu et al. (2022), section 2.2.
    """
    near = _squares_around(points, image.shape[:2], patch)
    height, width = near.shape
    count, total, squares = 0, 0.0, 0.0
    # Half of the 80 neighbours: the other half are the same pairs.
    for dy in range(5):
        for dx in range(-4 if dy else 1, 5):
            here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
            there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
            step = np.sqrt(((image[there].astype(np.float32) - image[here]) ** 2).sum(-1))[near[here]]
            count, total, squares = count + step.size, total + step.sum(), squares + (step**2).sum()
    if not count:
        return 1.0
    return float(max(1.0, np.sqrt(max(0.0, squares / count - (total / count) ** 2))))


def _squares_around(points: NDArray[np.floating], shape: tuple[int, ...], side: int) -> NDArray[np.bool_]:
    near = np.zeros(shape, bool)
    for y, x in np.floor(points).astype(np.int64):
        top, left = max(0, y - side // 2), max(0, x - side // 2)
        near[top : y + side // 2, left : x + side // 2] = True
    return near


def cluster_labels(
    image: NDArray[np.uint8],
    points: NDArray[np.floating],
    *,
    colour_weight: float = 0.2,
    patch: int = 60,
    max_distance: float = 20.0,
    margin: float = 0.0,
    sigma: float | None = None,
    haematoxylin: float = 0.0,
    roi: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> NDArray[np.int8]:
    """Nucleus, background and unlabelled pixels by k-means (k = 3) on distance and colour.

    The features of a pixel are `(d, colour_weight * rgb / sigma)`: `d` its distance to the nearest point,
    cut off at `max_distance`, and `sigma` that of `adaptive_sigma`. The paper leaves open in which unit d is
    taken; here it is `max_distance`, so that both features have a similar range (Qu et al. ask for that).

    A `sigma` that is given is taken for all images alike, as before the paper (its "Baseline").

    Background within `margin` pixels of a nucleus stays unlabelled: a third of it is the nucleus's own
    pale rim (measured on validation masks), and a network that is taught it outlines nuclei too small.

    `haematoxylin` is the weight of one feature more, the density of that stain over its 99th percentile.

    The clusters are those of the pixels in `roi` (H, W), where it is given: outside there are nuclei that
    nobody clicked, and they would be taken for background.

    Source: Liu et al. (2022), section 2.2; Qu et al. (2020), section IV-A.2.
    """
    shape = image.shape[:2]
    if not len(points):
        return np.full(shape, UNLABELLED, np.int8)
    distance = distance_to_points(points, shape)
    sigma = adaptive_sigma(image, points, patch=patch) if sigma is None else sigma
    colour = image.astype(np.float32) * (colour_weight / sigma)
    near = np.minimum(distance / max_distance, 1)[..., None]
    parts = [near, colour]
    if haematoxylin:
        density = rgb2hed(image)[..., :1]
        parts.append(density * (haematoxylin / max(1e-6, np.percentile(density, 99))))
    features = np.concatenate(parts, axis=-1, dtype=np.float32)
    features = features.reshape(-1, features.shape[-1])
    kmeans = KMeans(n_clusters=3, n_init=1, random_state=seed)
    known = features if roi is None or roi.sum() < 100 else features[roi.ravel()]
    cluster = kmeans.fit(known[::5]).predict(features).reshape(shape)
    nucleus, background = _name_clusters(cluster, distance)
    refined = _refine(cluster == nucleus, voronoi_cells(points, shape))
    labels = np.full(shape, UNLABELLED, np.int8)
    clear = ndimage.distance_transform_edt(~refined) > margin
    labels[(cluster == background) & clear & (distance > 10)] = BACKGROUND
    labels[refined] = NUCLEUS
    return labels


def _name_clusters(cluster: NDArray[np.integer], distance: NDArray[np.floating]) -> tuple[int, int]:
    """The cluster with most points is the nuclei; of the others, the one with fewest pixels near points is not."""
    nucleus = int(np.bincount(cluster[distance == 0], minlength=3).argmax())
    sizes = np.bincount(cluster.ravel(), minlength=3)
    near = np.bincount(cluster[distance <= 5], minlength=3) / np.maximum(1, sizes)
    near[nucleus] = np.inf
    return nucleus, int(near.argmin())


def _refine(mask: NDArray[np.bool_], cells: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Closed, filled and opened inside each Voronoi cell, so that close nuclei stay apart.

    The cells are shrunk to keep their borders free, which lets one pass over the image treat them all.
    """
    inside = ~find_boundaries(cells, mode="inner")
    grown = ndimage.binary_dilation(mask, disk(3)) & inside
    filled = ndimage.binary_fill_holes(grown) & inside
    opened: NDArray[np.bool_] = ndimage.binary_opening(ndimage.binary_erosion(filled, disk(3)), disk(2))
    sizes = np.bincount(ndimage.label(opened)[0].ravel())
    sizes[0] = 0
    return opened & (sizes >= 30)[ndimage.label(opened)[0]]


def instance_labels(
    probability: NDArray[np.floating],
    points: NDArray[np.floating],
    *,
    foreground: float = 0.5,
    background: float | None = None,
    min_area: int = 20,
) -> NDArray[np.int32]:
    """Instances: the semantic network's foreground, divided by the Voronoi cells of the points.

    Of the pieces in one cell, those stay that hold its point, or the sole one there is.

    Parameters
    ----------
    probability : (H, W) of a nucleus
    foreground
        Least probability of a nucleus's pixel (T_fg).
    background
        Pixels below this probability are the background instance (T_bg), numbered N + 1; there is none
        where it is None.
    min_area
        Smaller pieces are left out, pixels.

    Returns
    -------
    (H, W) int32    1..N the points' nuclei, 0 not labelled

    Source: Liu et al. (2022), section 2.2.
    """
    shape = (probability.shape[0], probability.shape[1])
    cells = voronoi_cells(points, shape)
    mask = ndimage.binary_fill_holes(probability >= foreground)
    pieces = _pieces(np.where(mask, cells, 0))
    count = int(pieces.max())
    labels = np.zeros(shape, np.int32)
    if count:
        first = np.unique(pieces, return_index=True)[1]
        cell = np.zeros(count + 1, np.int64)
        cell[pieces.ravel()[first]] = cells.ravel()[first]
        large = np.bincount(pieces.ravel(), minlength=count + 1) >= min_area
        holds_point = np.bincount(pieces[point_map(points, shape) > 0], minlength=count + 1) > 0
        alone = np.bincount(cell[1:][large[1:]], minlength=len(points) + 1)[cell] == 1
        keep = large & (holds_point | alone)
        keep[0] = False
        labels = np.where(keep[pieces], cells, 0).astype(np.int32)
    if background is not None:
        labels[(probability < background) & (labels == 0)] = len(points) + 1
    return labels


def _pieces(cells: NDArray[np.int32]) -> NDArray[np.int32]:
    """Connected pieces (4-connected) of equal value, numbered 1..n; 0 stays 0."""
    numbered: NDArray[np.int32] = label_pieces(cells, background=0, connectivity=1).astype(np.int32)
    return numbered
