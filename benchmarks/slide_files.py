"""Slides that benchmarks make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray


def write_tiff(path: Path, picture: NDArray[np.uint8], mpp: float) -> None:
    """Write (H, W, 3) pixels as a tiled TIFF of `mpp` microns per pixel."""
    tifffile.imwrite(
        path,
        picture,
        tile=(256, 256),
        photometric="rgb",
        compression="deflate",
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
    )
