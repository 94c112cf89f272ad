"""What is known of one tile before it is nuclei."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Maps of one tile, channels first.

    prob : (K, H, W) float32                  probability of each class of nucleus; their sum is a nucleus's
    embedding : (D, H, W) float16 or None     instance embedding without its anchor
    boundary : (H, W) float32 or None         probability of a nucleus's boundary, where a recipe tells it from the rest
    red : (H, W) uint8 or None                red of the image itself, which networks did not make
    """

    prob: NDArray[np.float32]
    embedding: NDArray[np.float16] | None = None
    boundary: NDArray[np.float32] | None = None
    red: NDArray[np.uint8] | None = None

    @property
    def aligned(self) -> bool:
        """Whether the embedding lies pixel by pixel over `prob`; that of overlapping patches does not."""
        return self.embedding is None or self.embedding.shape[1:] == self.prob.shape[1:]

    def crop(self, window: tuple[slice, slice]) -> Maps:
        """A part of aligned maps; nothing is copied."""
        embedding = None if self.embedding is None else self.embedding[:, *window]
        boundary = None if self.boundary is None else self.boundary[window]
        red = None if self.red is None else self.red[window]
        return Maps(self.prob[:, *window], embedding, boundary, red)
