"""Test-time augmentation: networks see an image flipped and turned, and what they say of it is averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import ConfigError, ModelError
from wsiseg.maps import Maps

COUNTS = (1, 4, 8)
"""Views that may be asked for: as it is; flipped along either axis and both; these and their transposes."""


@dataclass(frozen=True, slots=True)
class View:
    """Rows and columns exchanged, or not; then each in reverse order, or not."""

    transposed: bool
    rows: bool
    columns: bool

    def of(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(B, H, W, 3) images as they are seen."""
        if self.transposed:
            images = images.swapaxes(1, 2)
        return np.ascontiguousarray(images[:, :: -1 if self.rows else 1, :: -1 if self.columns else 1])

    def back(self, maps: Maps) -> Maps:
        """Maps of what was seen, where they belong; the first two channels of an embedding are offsets (y, x)."""
        embedding = None if maps.embedding is None else self.upright(maps.embedding).copy()
        if embedding is not None:
            embedding[0] *= -1 if self.rows else 1
            embedding[1] *= -1 if self.columns else 1
            if self.transposed:
                embedding[:2] = embedding[1::-1]
        return Maps(
            self.upright(maps.prob),
            embedding,
            None if maps.boundary is None else self.upright(maps.boundary),
        )

    def upright(self, values: NDArray[Any]) -> NDArray[Any]:
        """(..., H, W) values of what was seen, where they belong."""
        values = values[..., :: -1 if self.rows else 1, :: -1 if self.columns else 1]
        return values.swapaxes(-1, -2) if self.transposed else values


def views(count: int) -> tuple[View, ...]:
    """The views of `COUNTS`, the image as it is first.

    Raises
    ------
    ConfigError
        If there are not so many.
    """
    if count not in COUNTS:
        raise ConfigError(f"flips {count} is not possible; choose {', '.join(map(str, COUNTS))}")
    truth = (False, True)
    return tuple(View(t, r, c) for t in truth for r in truth for c in truth)[:count]


def averaged(
    predict: Callable[[NDArray[np.uint8]], list[Maps]], images: NDArray[np.uint8], count: int
) -> list[Maps]:
    """Mean maps over the views of (B, H, W, 3) images. Offsets turn with the image; other channels are as they are."""
    if count == 1:
        return predict(images)
    sums: list[_Sum] = []
    for view in views(count):
        found = [view.back(maps) for maps in predict(view.of(images))]
        sums = sums or [_Sum.like(maps) for maps in found]
        for total, maps in zip(sums, found, strict=True):
            total.add(maps)
    return [total.mean(count) for total in sums]


@dataclass(slots=True)
class _Sum:
    """Maps added up, each in float32."""

    parts: tuple[NDArray[np.float32] | None, ...]

    @staticmethod
    def like(maps: Maps) -> _Sum:
        return _Sum(tuple(None if p is None else np.zeros(p.shape, np.float32) for p in _parts(maps)))

    def add(self, maps: Maps) -> None:
        for total, part in zip(self.parts, _parts(maps), strict=True):
            if total is not None and part is not None:
                total += part

    def mean(self, count: int) -> Maps:
        prob, embedding, boundary = (None if p is None else p / np.float32(count) for p in self.parts)
        assert prob is not None
        return Maps(prob, None if embedding is None else embedding.astype(np.float16), boundary)


def _parts(maps: Maps) -> Iterable[NDArray[np.floating] | None]:
    return maps.prob, maps.embedding, maps.boundary


def check_flips(count: int, coordinates: object) -> None:
    """Refuse views that are not there, or that the form of a model's coordinates (None: it has none) does not allow.

    Raises
    ------
    ConfigError, ModelError
    """
    views(count)
    if count > 1 and coordinates not in (None, "output"):
        raise ModelError(
            f"flips {count}: embeddings of the form {coordinates!r} do not turn with the image; "
            "take 1, or a model of the form 'output'"
        )
