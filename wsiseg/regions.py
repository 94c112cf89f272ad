"""Regions drawn in QuPath, and the tissue that was processed: polygons with holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One polygon.

    exterior : (K, 2) float64    (y, x) corners in level-0 pixels, not closed
    holes : of (L, 2) float64    likewise
    name : str                   what QuPath calls it; may be empty
    """

    exterior: NDArray[np.float64]
    holes: tuple[NDArray[np.float64], ...] = ()
    name: str = ""
