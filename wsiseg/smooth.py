"""Smooth outlines: masks of nuclei blurred and cut at a half."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg import compiled


def smoothed(labels: NDArray[np.int32], sigma: float) -> NDArray[np.int32]:
    """Each nucleus blurred by a Gaussian of `sigma` pixels and cut at a half; the same numbers.

    Of one that falls apart the largest piece stays, of equal ones the first; one less than some two sigmas across is gone.
    No pixel is more than half in two nuclei, and one that is half in both is the first's.

    Parameters
    ----------
    labels : (H, W) int32    0 is background; a nucleus goes on beyond the image's border as it is there
    """
    return (_smoothed if compiled.AVAILABLE else _each_smoothed)(labels, _gaussian(sigma))


def _gaussian(sigma: float) -> NDArray[np.float32]:
    """(2 r + 1,) whole numbers of sum 256, r twice sigma: sums of them are the same in any order.

    >>> _gaussian(2.0).tolist()
    [7.0, 17.0, 32.0, 46.0, 52.0, 46.0, 32.0, 17.0, 7.0]
    """
    reach = int(np.ceil(2 * sigma))
    exact = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    weights = np.rint(256 * exact / exact.sum()).astype(np.float32)
    weights[reach] += 256 - weights.sum()
    return weights


def _each_smoothed(labels: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.int32]:
    """The same without compiled loops."""
    smooth, weights, reach = np.zeros_like(labels), weights / weights.sum(), len(weights) // 2
    boxes = ndimage.find_objects(labels)
    for label in np.unique(labels[labels > 0]):
        box = boxes[label - 1]
        wide = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        mask = (labels[wide] == label).astype(np.float32)
        for axis in (0, 1):
            mask = ndimage.correlate1d(mask, weights, axis=axis, mode="nearest")
        pieces, count = ndimage.label(mask >= 0.5)
        if count:
            largest = pieces == 1 + np.bincount(pieces[pieces > 0] - 1).argmax()
            smooth[wide][largest & (smooth[wide] == 0)] = label
    return smooth


@compiled.compiled
def _smoothed(labels: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.int32]:
    """Each nucleus blurred and cut at a half, its largest piece."""
    height, width = labels.shape
    boxes, reach = _boxes(labels), len(weights) // 2
    smooth = np.zeros((height, width), np.int32)
    for label in range(1, len(boxes)):
        top, bottom, left, right = boxes[label]
        if top >= bottom:
            continue
        top, bottom = max(0, top - reach), min(height, bottom + reach)
        left, right = max(0, left - reach), min(width, right + reach)
        mask = _half(labels[top:bottom, left:right], label, weights)
        _keep_largest(mask)
        for y in range(bottom - top):
            row, out = mask[y], smooth[top + y, left:right]
            for x in range(len(row)):
                out[x] = label if row[x] and out[x] == 0 else out[x]
    return smooth


@compiled.compiled
def _half(labels: NDArray[np.int32], label: int, weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Where the mask (H, W) of a label, which goes on beyond its borders as it is there, is at least 0.5 when it is blurred."""
    height, width = labels.shape
    reach = len(weights) // 2
    down = np.zeros((height, width + 2 * reach), np.float32)
    row, total = np.empty(width, np.float32), np.zeros(width, np.float32)
    for y in range(-reach, height + reach):
        here = labels[min(max(y, 0), height - 1)]
        for x in range(width):
            row[x] = here[x] == label
        for k in range(-reach, reach + 1):
            if 0 <= y + k < height:
                weight, out = weights[k + reach], down[y + k, reach:]
                for x in range(width):
                    out[x] += weight * row[x]
    mask = np.empty((height, width), np.uint8)
    half = np.float32(0.5) * weights.sum() ** 2
    for y in range(height):
        blurred = down[y]
        for k in range(reach):
            blurred[k], blurred[reach + width + k] = blurred[reach], blurred[reach + width - 1]
        total[:] = 0
        for k in range(2 * reach + 1):
            weight, part = weights[k], blurred[k:]
            for x in range(width):
                total[x] += weight * part[x]
        for x in range(width):
            mask[y, x] = total[x] >= half
    return mask


@compiled.compiled
def _keep_largest(mask: NDArray[np.uint8]) -> None:
    """Of the connected pieces (by sides) of a mask (H, W) of 0 and 1 the largest stays, of equal ones the first."""
    height, width = mask.shape
    flat, stack = mask.reshape(-1), np.empty(mask.size, np.int32)
    best, best_size, piece = 0, 0, 1
    for start in range(mask.size):
        if flat[start] != 1:
            continue
        # Pieces are numbered 2 to 255; what comes after those is dropped, of a nucleus there is no such.
        piece += 1
        if piece > 255:
            flat[start] = 0
            continue
        flat[start], stack[0], size, waiting = piece, start, 0, 1
        while waiting:
            waiting -= 1
            p = stack[waiting]
            size += 1
            y, x = p // width, p % width
            if y > 0 and flat[p - width] == 1:
                flat[p - width], stack[waiting] = piece, p - width
                waiting += 1
            if y + 1 < height and flat[p + width] == 1:
                flat[p + width], stack[waiting] = piece, p + width
                waiting += 1
            if x > 0 and flat[p - 1] == 1:
                flat[p - 1], stack[waiting] = piece, p - 1
                waiting += 1
            if x + 1 < width and flat[p + 1] == 1:
                flat[p + 1], stack[waiting] = piece, p + 1
                waiting += 1
        if size > best_size:
            best, best_size = piece, size
    for p in range(mask.size):
        flat[p] = flat[p] == best and best > 0


@compiled.compiled
def _boxes(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """(n + 1, 4) top, bottom, left, right of each label, half-open; of one that is not there the bottom is 0."""
    height, width = labels.shape
    boxes = np.empty((labels.max() + 1, 4), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = height, 0, width, 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label > 0:
                box = boxes[label]
                box[0], box[1] = min(box[0], y), y + 1
                box[2], box[3] = min(box[2], x), max(box[3], x + 1)
    return boxes
