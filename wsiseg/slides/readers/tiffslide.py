"""TiffSlide: TIFF-based slides that OpenSlide refuses (JPEG 2000, say), and fsspec URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import tiffslide
from numpy.typing import NDArray

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Fill, read_on_white

ORDER = 10


@dataclass(frozen=True, slots=True)
class TiffSlideReader:
    """A `Slide` read by TiffSlide, one thread at a time."""

    handle: tiffslide.TiffSlide
    path: str
    fill: Fill = "white"
    lock: Lock = field(default_factory=Lock)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        width, height = self.handle.dimensions
        return height, width

    @property
    def mpp(self) -> tuple[float, float] | None:
        """See `Slide`."""
        y, x = (self.handle.properties.get(f"tiffslide.mpp-{axis}") for axis in "yx")
        return None if y is None or x is None else (float(y), float(x))

    @property
    def downsamples(self) -> tuple[float, ...]:
        """See `Slide`."""
        return tuple(float(d) for d in self.handle.level_downsamples)

    @property
    def bounds(self) -> Rect:
        """See `Slide`."""
        return Rect(0, 0, *self.shape)

    @property
    def properties(self) -> Mapping[str, str]:
        """See `Slide`."""
        return {k: str(v) for k, v in self.handle.properties.items() if v is not None}

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`."""
        down = self.handle.level_downsamples[level]
        width, height = self.handle.level_dimensions[level]

        def inside(part: Rect) -> NDArray[np.uint8]:
            at, size = (round(part.x0 * down), round(part.y0 * down)), (part.width, part.height)
            try:
                with self.lock:
                    pixels = self.handle.read_region(at, level, size, as_array=True)
            except Exception as error:  # tifffile and its codecs raise all kinds
                raise SlideError(f"{self.path}: damaged at {part} of level {level} ({error})") from error
            return np.asarray(pixels, np.uint8)[..., :3]

        return read_on_white(rect, Rect(0, 0, height, width), inside)

    def close(self) -> None:
        """See `Slide`."""
        self.handle.close()


def open(path: str, use_bounds: bool) -> TiffSlideReader:  # the plug-in's one verb
    """Open a slide; see `slides.readers`."""
    return TiffSlideReader(tiffslide.TiffSlide(path), path)
