"""What the networks say of one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Maps of one tile, channels first.

    prob : (K, H, W) float32                  probability of each class of nucleus
    embedding : (D, H, W) float16 or None     instance embedding without its anchor
    """

    prob: NDArray[np.float32]
    embedding: NDArray[np.float16] | None = None
