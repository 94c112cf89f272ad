"""Connected pieces of the foreground: the nuclei of some recipes, and what the grouping of the others must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Rect
from wsiseg.instances import instances
from wsiseg.maps import Maps


def components(tile: Maps, *, threshold: float, min_area: int) -> NDArray[np.int32]:
    """(H, W) int32 connected components of the foreground of all classes together, holes filled; 1..n without gaps."""
    return instances((tile.prob.sum(0) >= threshold).astype(np.int32), min_area=min_area)


def group(
    tile: Maps,
    settings: Any,
    _: Rect,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int32], None]:
    """(H, W) int32 the same at a recipe's own threshold and least area, or at others; there is no embedding."""
    least = settings.min_area if min_area is None else min_area
    above = settings.threshold if threshold is None else threshold
    return components(tile, threshold=above, min_area=least), None
