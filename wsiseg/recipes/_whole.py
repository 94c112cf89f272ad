"""A whole image through a recipe's networks as they are trained: what a stage is checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.networks.forward import pad_to_stride, to_tensor
from wsiseg.stages import Networks


def whole_nuclei(
    maps: Callable[..., list[Maps]],
    group: Callable[..., tuple[NDArray[np.int32], Any]],
    settings: Any,
    trained: Networks,
    image: NDArray[np.uint8],
) -> NDArray[np.int32]:
    """(H, W) int32 nuclei of an image (H, W, 3) of any size, mirrored at its borders, by a recipe's `maps` and `group`."""
    padded, inside = pad_to_stride(image, margin=64)
    tile = maps(trained, settings, to_tensor(padded[None]), [(0, 0)])[0]
    tile = replace(tile, red=np.ascontiguousarray(padded[..., 0]))
    return group(tile, settings, Rect(0, 0, *tile.prob.shape[1:]))[0][inside]
