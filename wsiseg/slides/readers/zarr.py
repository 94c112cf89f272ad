"""Zarr: OME-Zarr images with their levels and pixel size, and plain arrays, version 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from imagecodecs.numcodecs import register_codecs
from numpy.typing import NDArray

from wsiseg.errors import SlideError
from wsiseg.geometry import Rect
from wsiseg.slides.slide import Fill, read_on_white

ORDER = 30

MICRONS = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "um": 1.0, "µm": 1.0, "nm": 1e-3}


@dataclass(frozen=True, slots=True)
class ZarrReader:
    """A `Slide` whose levels are zarr arrays; reading them is safe from several threads."""

    levels: tuple[Any, ...]
    axes: str
    mpp: tuple[float, float] | None
    path: str
    fill: Fill = "white"

    @property
    def shape(self) -> tuple[int, int]:
        """See `Slide`."""
        return self._size(0)

    def _size(self, level: int) -> tuple[int, int]:
        shape = self.levels[level].shape
        return shape[self.axes.index("y")], shape[self.axes.index("x")]

    @property
    def downsamples(self) -> tuple[float, ...]:
        """See `Slide`."""
        return tuple(self.shape[1] / self._size(i)[1] for i in range(len(self.levels)))

    @property
    def bounds(self) -> Rect:
        """See `Slide`."""
        return Rect(0, 0, *self.shape)

    @property
    def properties(self) -> Mapping[str, str]:
        """See `Slide`."""
        return {"vendor": "zarr", "axes": self.axes}

    def read(self, rect: Rect, level: int) -> NDArray[np.uint8]:
        """See `Slide`."""

        def inside(part: Rect) -> NDArray[np.uint8]:
            rows, columns = part.slices()
            where = {"y": rows, "x": columns, "c": slice(0, 3)}
            try:
                block = np.asarray(self.levels[level][tuple(where.get(axis, 0) for axis in self.axes)])
            except Exception as error:  # zarr and its codecs raise all kinds
                raise SlideError(f"{self.path}: damaged at {part} of level {level} ({error})") from error
            order = [axis for axis in self.axes if axis in "yxc"]
            return np.ascontiguousarray(block.transpose([order.index(axis) for axis in "yxc"]))

        return read_on_white(rect, Rect(0, 0, *self._size(level)), inside)

    def close(self) -> None:
        """See `Slide`: zarr keeps nothing open."""


def open(path: str, use_bounds: bool) -> ZarrReader:  # the plug-in's one verb
    """Open an image; see `slides.readers`."""
    register_codecs(verbose=False)
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        levels, axes, mpp = (node,), guess_axes(node.shape), None
    else:
        levels, axes, mpp = read_group(node)
    for level in levels:
        if level.dtype != np.uint8 or level.shape[axes.index("c")] < 3:
            raise SlideError(f"{level.dtype} of shape {level.shape}; a colour image of 8 bits is needed")
    return ZarrReader(levels, axes, mpp, path)


def read_group(group: Any) -> tuple[tuple[Any, ...], str, tuple[float, float] | None]:
    """(levels, axes, mpp) of a group: those its multiscales say, else its one array or numbered ones."""
    attributes = dict(group.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if scales:
        levels = tuple(group[d["path"]] for d in scales[0]["datasets"])
        named = scales[0].get("axes")
        axes = "".join(a["name"] if isinstance(a, dict) else a for a in named) if named else "tczyx"
        return levels, axes, pixel_size(scales[0], axes)
    names = sorted((n for n, _ in group.arrays()), key=lambda n: (not n.isdecimal(), len(n), n))
    if not names:
        raise SlideError("a zarr group without an array or multiscales")
    arrays = [group[n] for n in names if n.isdecimal()] or [group[names[0]]]
    return tuple(arrays), guess_axes(arrays[0].shape), None


def pixel_size(scale: Mapping[str, Any], axes: str) -> tuple[float, float] | None:
    """Microns per pixel (y, x) of the first level; None where units or scales are not given."""
    units = {a["name"]: a.get("unit") for a in scale.get("axes", []) if isinstance(a, dict)}
    factors = np.ones(len(axes))
    found = False
    for source in (scale["datasets"][0], scale):
        for transform in source.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                factors, found = factors * np.asarray(transform["scale"], float), True
    if not found or any(units.get(axis) not in MICRONS for axis in "yx"):
        return None
    y, x = (float(factors[axes.index(axis)]) * MICRONS[str(units[axis])] for axis in "yx")
    return y, x


def guess_axes(shape: Sequence[int]) -> str:
    """Axes of an array that does not name them: channels are the short end.

    >>> guess_axes((2967, 2220, 3)), guess_axes((3, 100, 100)), guess_axes((1, 3, 1, 64, 64))
    ('yxc', 'cyx', 'tczyx')
    """
    if len(shape) == 3:
        return "yxc" if shape[2] in (3, 4) else "cyx"
    if len(shape) in (4, 5):
        return "tczyx"[5 - len(shape) :]
    raise SlideError(f"a zarr array of shape {tuple(shape)}; a colour image has 3 to 5 dimensions")
