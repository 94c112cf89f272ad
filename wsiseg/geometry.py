"""Rectangles of pixels: (y, x), half-open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rect:
    """Pixels `y0 <= y < y1`, `x0 <= x < x1`.

    >>> Rect(0, 0, 4, 6).grow(2)
    Rect(y0=-2, x0=-2, y1=6, x1=8)
    >>> Rect(0, 0, 4, 6).intersect(Rect(3, 5, 9, 9)).shape
    (1, 1)
    """

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        """Rows; 0 where the rectangle is empty."""
        return max(0, self.y1 - self.y0)

    @property
    def width(self) -> int:
        """Columns; 0 where the rectangle is empty."""
        return max(0, self.x1 - self.x0)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def grow(self, margin: int) -> Rect:
        """The rectangle with `margin` more pixels on every side."""
        return Rect(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def shift(self, dy: int, dx: int) -> Rect:
        """The rectangle moved by (dy, dx)."""
        return Rect(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def intersect(self, other: Rect) -> Rect:
        """What both hold; `area` is 0 where that is nothing."""
        return Rect(
            max(self.y0, other.y0),
            max(self.x0, other.x0),
            min(self.y1, other.y1),
            min(self.x1, other.x1),
        )

    def slices(self, origin: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Index of this rectangle in an array whose first pixel is `origin`."""
        return (
            slice(self.y0 - origin[0], self.y1 - origin[0]),
            slice(self.x0 - origin[1], self.x1 - origin[1]),
        )

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of `points` (N, 2), as (y, x), lie inside; the far edges do not belong.

        >>> Rect(0, 0, 2, 2).contains(np.array([[0.0, 0.0], [2.0, 1.0]])).tolist()
        [True, False]
        """
        y, x = points[:, 0], points[:, 1]
        inside: NDArray[np.bool_] = (y >= self.y0) & (y < self.y1) & (x >= self.x0) & (x < self.x1)
        return inside

    def depth(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Distance of each of `points` (N, 2) to the nearest edge; negative outside."""
        y, x = points[:, 0], points[:, 1]
        return np.minimum(np.minimum(y - self.y0, self.y1 - y), np.minimum(x - self.x0, self.x1 - x))
