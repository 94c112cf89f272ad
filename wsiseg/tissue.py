"""Where a slide holds tissue: everything that takes up light and is no grey of the scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

LEAST, MOST = 0.04, 0.15
"""Bounds of the threshold in optical density: below lies the noise of bare glass, above is stain for sure."""

SMALLEST_UM2 = 2_000.0
"""Specks of less are dust: a tenth of a square millimetre's corner, some fifty nuclei's room."""

GROW_UM = 50.0
"""Tissue is grown by this, so that nuclei at its frayed border are seen."""


def tissue_mask(rgb: NDArray[np.uint8], *, mpp: float) -> NDArray[np.bool_]:
    """Tissue of a thumbnail.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
    mpp : float    microns per pixel of it

    Returns
    -------
    (H, W) bool    all False for bare glass, whatever its shade

    A pixel is tissue where its optical density against the glass, plus what its channels differ by, is
    above Otsu's threshold; that is kept within bounds, so that bare glass is not divided by its noise.
    """
    glass = np.maximum(np.percentile(rgb.reshape(-1, 3), 95, axis=0), 180.0)
    density = np.log(glass / np.maximum(rgb, 1.0)).clip(min=0)
    signal = density.mean(-1) + (density.max(-1) - density.min(-1))
    smooth = ndimage.gaussian_filter(signal, max(1.0, 8.0 / mpp))
    threshold = float(np.clip(threshold_otsu(smooth) / 2, LEAST, MOST)) if np.ptp(smooth) > 0 else MOST
    mask = smooth > threshold
    mask = larger_than(mask, SMALLEST_UM2 / mpp**2)
    if not mask.any():
        return mask
    grown = ndimage.distance_transform_edt(~mask) <= GROW_UM / mpp
    return ~larger_holes(grown, 10 * SMALLEST_UM2 / mpp**2)


def larger_than(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """Connected pieces of at least `area` pixels."""
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel()) >= area
    large[0] = False
    result: NDArray[np.bool_] = large[pieces]
    return result


def larger_holes(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """What is outside `mask`, but for holes of less than `area` pixels."""
    return larger_than(~mask, area)
