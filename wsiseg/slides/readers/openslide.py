"""OpenSlide: svs, ndpi, mrxs, scn, bif, DICOM, generic tiled TIFF and more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import openslide
from numpy.typing import NDArray

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Fill, read_on_white

ORDER = 0


@dataclass(frozen=True, slots=True)
class OpenSlideReader:
    """A `Slide` read by OpenSlide, which is safe to use from several threads."""

    handle: openslide.OpenSlide
    bounds: Rect
    path: str
    fill: Fill = "white"

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        return self.bounds.shape

    @property
    def mpp(self) -> tuple[float, float] | None:
        """See `Slide`."""
        y, x = (self.properties.get(f"openslide.mpp-{axis}") for axis in "yx")
        return None if y is None or x is None else (float(y), float(x))

    @property
    def downsamples(self) -> tuple[float, ...]:
        """See `Slide`."""
        return tuple(float(d) for d in self.handle.level_downsamples)

    @property
    def properties(self) -> Mapping[str, str]:
        """See `Slide`."""
        return dict(self.handle.properties)

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`."""
        down = self.handle.level_downsamples[level]
        whole = Rect(0, 0, round(self.shape[0] / down), round(self.shape[1] / down))

        def inside(part: Rect) -> NDArray[np.uint8]:
            at = (round(part.x0 * down) + self.bounds.x0, round(part.y0 * down) + self.bounds.y0)
            try:
                rgba = np.asarray(self.handle.read_region(at, level, (part.width, part.height)))
            except openslide.OpenSlideError as error:
                raise SlideError(f"{self.path}: damaged at {part} of level {level} ({error})") from error
            return on_white(rgba)

        return read_on_white(rect, whole, inside)

    def close(self) -> None:
        """See `Slide`."""
        self.handle.close()


def open(path: str, use_bounds: bool) -> OpenSlideReader:  # the plug-in's one verb
    """Open a slide; see `slides.readers`."""
    handle = openslide.OpenSlide(path)
    width, height = handle.dimensions
    bounds = Rect(0, 0, height, width)
    keys = [f"openslide.bounds-{name}" for name in ("y", "x", "height", "width")]
    if use_bounds and all(key in handle.properties for key in keys):
        y, x, high, wide = (int(handle.properties[key]) for key in keys)
        bounds = Rect(y, x, y + high, x + wide).intersect(bounds)
    return OpenSlideReader(handle, bounds, path)


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 4) with transparency, laid on white: where a scanner saw nothing, OpenSlide gives no colour."""
    if rgba[..., 3].min(initial=255) == 255:
        return rgba[..., :3]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
