"""Build the sample slide: real tissue that scikit-image carries, mirrored into a pyramidal, tiled TIFF.

    python scripts/sample_slide.py OUT.tif [--size 2048 3072]

The image (colonic glands, DAB and haematoxylin) has no scale. Its nuclei say it: measured on the 512 x 512
pixels, the median nucleus of glands cut across is 12.5 x 9.0 px (14 nuclei), of glands cut lengthwise
24 x 12 px (12 nuclei), and compact ones of the stroma are 12.3 x 7.1 px (14 nuclei). Against 7 um across,
13.5 x 5.5 um lengthwise and 6.5 um, that is 0.64, 0.51 and 0.71 um per pixel by the diameter of the circle
of equal area (10.9, 17.0, 9.1 px): 0.6, rounded to what such a measurement can tell.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import data

IHC_MPP = 0.6
"""Microns per pixel of `skimage.data.immunohistochemistry()`, as its nuclei say."""

LEVELS = 3
TILE = 256


def mirrored(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The image with its mirror images beside and below it, cut to (height, width)."""
    rows, columns = -(-height // image.shape[0]), -(-width // image.shape[1])
    pad = ((0, (rows - 1) * image.shape[0]), (0, (columns - 1) * image.shape[1]), (0, 0))
    return np.pad(image, pad, mode="symmetric")[:height, :width]


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of every 2 x 2 pixels."""
    pairs = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 3)
    return pairs.mean((1, 3)).round().astype(np.uint8)


def write(path: Path, image: NDArray[np.uint8], mpp: float) -> None:
    """Write a tiled TIFF with `LEVELS` levels, each half the one before, that appears when complete."""
    temporary = path.with_name(path.name + ".tmp")
    per_cm = 10_000 / mpp
    with tifffile.TiffWriter(temporary) as tiff:
        for level in range(LEVELS):
            tiff.write(
                image,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(per_cm / 2**level, per_cm / 2**level),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
                software="wsiseg sample slide",
            )
            image = halved(image)
    os.replace(temporary, path)


def main() -> None:
    """Build it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(2048, 3072), metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write(options.out, mirrored(data.immunohistochemistry(), *options.size), IHC_MPP)


if __name__ == "__main__":
    main()
