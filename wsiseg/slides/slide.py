"""What a reader gives: a slide with levels, of which rectangles are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wsiseg.geometry import Rect

Fill = Literal["white", "reflect"]


@dataclass(frozen=True, slots=True)
class SlideRef:
    """All that a worker needs to open a slide.

    path : str              file, folder or fsspec URL
    reader : str or None    plug-in of `slides.readers`; None tries them in their order
    mpp : float or None     microns per level-0 pixel, instead of what the file says
    use_bounds : bool       whether pixel (0, 0) is the corner of the slide's bounds, as in QuPath
    """

    path: str
    reader: str | None = None
    mpp: float | None = None
    use_bounds: bool = True


class Slide(Protocol):
    """An open slide; one may be read from several threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of level 0, inside the bounds."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Microns per level-0 pixel, (y, x), as the file says; None where it does not."""

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level; the first is 1."""

    @property
    def bounds(self) -> Rect:
        """What `shape` covers, in the file's own level-0 pixels."""

    @property
    def properties(self) -> Mapping[str, str]:
        """What the file says of itself, for people."""

    @property
    def fill(self) -> Fill:
        """What lies outside: bare glass, or the image mirrored."""

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 pixels of `rect`, in pixels of `level`; white outside."""

    def close(self) -> None:
        """Let go of the file."""


def level_shape(slide: Slide, level: int) -> tuple[int, int]:
    """(H, W) of a level: all its pixels that level 0 covers."""
    down = slide.downsamples[level]
    return max(1, round(slide.shape[0] / down)), max(1, round(slide.shape[1] / down))


def read_on_white(rect: Rect, inside: Rect, read: Callable[[Rect], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: what `read` gives of the part of `rect` that lies inside, and white around it."""
    part = rect.intersect(inside)
    if part == rect:
        return np.require(read(part), np.uint8, ["C", "W", "O"])
    out = np.full((*rect.shape, 3), 255, np.uint8)
    if part.area:
        out[part.slices((rect.y0, rect.x0))] = read(part)
    return out
