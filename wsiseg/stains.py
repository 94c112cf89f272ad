"""Stain vectors, for varying colours in training."""

from __future__ import annotations

import torch

STAINS = torch.tensor(
    [
        [0.65, 0.70, 0.29],  # haematoxylin
        [0.07, 0.99, 0.11],  # eosin
        [0.27, 0.57, 0.78],  # DAB, orthogonal to neither, but enough to span the third direction
    ]
)
"""Optical density in red, green, blue of unit stain (Ruifrok and Johnston 2001)."""
