"""The published inference: patches that overlap, each clustered alone, their nuclei pasted together.

The embeddings of a tile's patches travel as one mosaic: patch (i, j) lies at (i, j) times its side.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE, OVERLAP = 224, 80
"""Patch and overlap of the authors' evaluation, pixels."""


def starts(length: int) -> list[int]:
    """First pixels of the patches that cover `length` pixels; the last one ends where the image ends.

    Examples
    --------
    >>> starts(512)
    [0, 144, 288]
    """
    if length < SIDE:
        raise ValueError(f"{length} pixels are fewer than one patch of {SIDE}")
    return [*range(0, length - SIDE, SIDE - OVERLAP), length - SIDE]


def embed_mosaic(embed: Callable[[Tensor], Tensor], image: Tensor) -> NDArray[np.float16]:
    """(D, rows * 224, columns * 224) embeddings of the patches of one image (3, H, W)."""
    rows = []
    for y in starts(image.shape[1]):
        row = [image[:, y : y + SIDE, x : x + SIDE] for x in starts(image.shape[2])]
        rows.append(torch.cat(list(embed(torch.stack(row))), dim=2))
    mosaic: NDArray[np.float16] = torch.cat(rows, dim=1).half().cpu().numpy()
    return mosaic


def paste(
    shape: tuple[int, int], group: Callable[[tuple[slice, slice], tuple[slice, slice]], NDArray[np.int32]]
) -> NDArray[np.int32]:
    """(H, W) int32 nuclei of a tile from those of its patches, in reading order.

    `group` gives the labels of one patch from where it lies in the tile and in the mosaic. Of a nucleus
    that an earlier patch has for more than 30 %, nothing is pasted; else what is still free of it.
    """
    labels, count = np.zeros(shape, np.int32), 0
    for i, y in enumerate(starts(shape[0])):
        for j, x in enumerate(starts(shape[1])):
            here = (slice(y, y + SIDE), slice(x, x + SIDE))
            there = (slice(i * SIDE, (i + 1) * SIDE), slice(j * SIDE, (j + 1) * SIDE))
            found = group(here, there)
            sizes = np.bincount(found.ravel())
            taken = np.bincount(found[labels[here] > 0], minlength=len(sizes))
            new = taken <= 0.3 * sizes
            new[0] = False
            number = np.zeros(len(sizes), np.int32)
            number[new] = count + 1 + np.arange(new.sum())
            count += int(new.sum())
            labels[here] = np.where(labels[here] > 0, labels[here], number[found])
    return labels
