"""Plain PNG, JPEG and TIFF images, whole in memory; outside they are mirrored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Fill, read_on_white

ORDER = 40

MAX_PIXELS = 500_000_000
"""More than this is 1.5 GB; such an image wants to be a tiled TIFF."""


@dataclass(frozen=True, slots=True)
class FlatImage:
    """A `Slide` of one level, in memory. The resolution in such files is a printer's, so there is no mpp."""

    pixels: NDArray[np.uint8]
    fill: Fill = "reflect"
    mpp: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def downsamples(self) -> tuple[float, ...]:
        """See `Slide`."""
        return (1.0,)

    @property
    def bounds(self) -> Rect:
        """See `Slide`."""
        return Rect(0, 0, *self.shape)

    @property
    def properties(self) -> Mapping[str, str]:
        """See `Slide`."""
        return {"vendor": "plain image"}

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:  # there is one level
        """See `Slide`."""
        return read_on_white(rect, self.bounds, lambda part: self.pixels[part.slices()])

    def close(self) -> None:
        """See `Slide`: nothing is open."""


def open(path: str, use_bounds: bool) -> FlatImage:  # the plug-in's one verb
    """Open an image; see `slides.readers`."""
    with warnings.catch_warnings():
        # Its own limit is checked below, with a message that says what to do.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SlideError(
                    f"{image.width} x {image.height} pixels; convert it to a tiled, pyramidal TIFF"
                )
            return FlatImage(np.asarray(image.convert("RGB")))
