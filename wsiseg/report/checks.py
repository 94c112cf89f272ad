"""Whether a result can be trusted: what a person would look at first, and what was found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsiseg.report.summary import Summary

State = Literal["good", "look"]

SHARP = 0.30
"""Sharpness at 0.5 um per pixel below which a field is out of focus: fields of sharp 20x scans, in H&E and in
immunohistochemistry, have 0.45 to 1.15; blurred by a Gaussian of 0.75 um they have 0.18 to 0.30."""

FEW, MANY = 100.0, 20_000.0
"""Nuclei per square millimetre of tissue, between which tissue lies: fat and stroma, and lymph nodes."""

SMALL, LARGE = 14.0, 150.0
"""Median area of nuclei in square microns, outside which the pixel size is doubted."""

MANY_AMBIGUOUS = 0.25
"""Share of ambiguous nuclei above which nuclei are not told apart; on labelled images it is 0.02 to 0.17."""

PEN_MM2 = 0.05
"""Area of ink from which it is told."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer.

    name : str
    state : str     "good", or "look" where a person should
    said : str
    """

    name: str
    state: State
    said: str


def sharpness(rgb: NDArray[np.uint8]) -> float:
    """How much of the contrast of a field (H, W, 3) lies between neighbouring pixels; about 0.1 to 1.

    The spread of the brightness's Laplacian over that of the brightness itself. NaN for a field without contrast.
    """
    grey = rgb.astype(np.float64).mean(-1)
    contrast = np.std(grey - ndimage.gaussian_filter(grey, 8))
    return float(np.std(ndimage.laplace(grey)) / contrast) if contrast > 2 else float("nan")


def focus(values: Sequence[float]) -> Check:
    """From the sharpness of some fields of tissue."""
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return Check("Focus", "look", "no field with contrast was found")
    blurred = sum(v < SHARP for v in known)
    said = f"{blurred} of {len(known)} fields are blurred (median sharpness {np.median(known):.2f})"
    return Check("Focus", "look" if blurred > len(known) / 4 else "good", said)


def ink(thumbnail: NDArray[np.uint8], mpp: float) -> Check:
    """Marks of pen or surgical ink: strong green, teal, blue or black, which no common stain has, in (H, W, 3)."""
    red, green, blue = (thumbnail[..., i].astype(np.int64) for i in range(3))
    marked = (
        (green - np.maximum(red, blue) > 25)
        | (np.minimum(green, blue) - red > 25)
        | (blue - red > 90)
        | (np.maximum(np.maximum(red, green), blue) < 45)
    )
    pieces, count = ndimage.label(ndimage.binary_opening(marked))
    sizes = np.bincount(pieces.ravel())[1:] * mpp**2 / 1e6 if count else np.zeros(0)
    area = float(sizes[sizes > PEN_MM2 / 10].sum())
    if area < PEN_MM2:
        return Check("Ink", "good", "none seen")
    return Check(
        "Ink",
        "look",
        f"{area:.2f} mm² of a colour that is no stain: what is outlined there is to be looked at",
    )


def emptiness(summary: Summary, tissue: NDArray[np.bool_]) -> Check:
    """Fields that lie in tissue (H, W) bool, as those of the summary do, and hold no nucleus."""
    inside = ndimage.binary_erosion(tissue)
    if not inside.any():
        inside = tissue
    total = int(inside.sum())
    empty = int((inside & (summary.density == 0)).sum())
    if not total:
        return Check("Empty tissue", "look", "no tissue was found")
    share = empty / total
    said = f"{share:.0%} of {total} fields of tissue hold no nucleus"
    return Check("Empty tissue", "look" if share > 0.4 else "good", said)


def density(count: int, tissue_mm2: float) -> Check:
    """Too few or too many nuclei for the tissue there is."""
    if not tissue_mm2:
        return Check("Density", "look", "there is no tissue")
    per = count / tissue_mm2
    said = f"{per:,.0f} nuclei per mm² of what was processed"
    if per < FEW:
        return Check("Density", "look", f"{said}: very few")
    if per > MANY:
        return Check("Density", "look", f"{said}: very many")
    return Check("Density", "good", said)


def pixel_size(median_area: float, mpp: float) -> Check:
    """Whether nuclei are as large as nuclei are: a 20x slide read as 40x makes them a quarter."""
    if not np.isfinite(median_area):
        return Check("Pixel size", "look", "there is no nucleus to tell it by")
    said = f"the median nucleus has {median_area:.0f} µm² at {mpp:.4g} µm per pixel"
    if median_area < SMALL:
        return Check(
            "Pixel size", "look", f"{said}: small; is the pixel size too small, a 20x slide read as 40x?"
        )
    if median_area > LARGE:
        return Check("Pixel size", "look", f"{said}: large; is the pixel size too large?")
    return Check("Pixel size", "good", said)


def ambiguity(flagged: NDArray[np.floating] | None) -> Check | None:
    """How many nuclei were hard to tell apart, from the flags of some, (S,); None where the recipe flags none."""
    if flagged is None or not len(flagged):
        return None
    share = float(flagged.mean())
    said = f"{share:.0%} of the nuclei were hard to tell from others: merged or split ones are among them"
    return Check("Ambiguous nuclei", "look" if share > MANY_AMBIGUOUS else "good", said)
