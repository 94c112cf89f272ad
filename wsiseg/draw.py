"""Pictures: outlines over tissue, borders of tiles, a scale bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLE = 4
"""Lines are drawn this many times larger, as a mask, and averaged: smooth edges, and tissue left sharp."""

BAND = 512
"""Rows of the picture whose mask is drawn at once, so that memory does not grow with its height."""

BAR_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Lengths that a scale bar may have, microns."""

Color = tuple[int, int, int]


def draw_outlines(
    rgb: NDArray[np.uint8],
    rings: Iterable[NDArray[np.floating]],
    *,
    color: Color = (0, 0, 0),
    width: float = 1.5,
) -> NDArray[np.uint8]:
    """The picture with closed outlines over it.

    Parameters
    ----------
    rgb : (H, W, 3) uint8
        Left as it is; a new picture is returned.
    rings : of (K, 2)
        Corners (y, x), closed or not, in pixels of the picture; (0, 0) is the upper left corner of the first
        pixel. What lies outside the picture is not drawn.
    width
        Pixels of the picture; an outline runs along the middle of its line.

    Examples
    --------
    >>> white = np.full((8, 8, 3), 255, np.uint8)
    >>> square = np.array([[2.0, 2.0], [2.0, 6.0], [6.0, 6.0], [6.0, 2.0]])
    >>> (draw_outlines(white, [square], width=2)[4, :, 0] < 128).astype(int).tolist()
    [0, 1, 1, 0, 0, 1, 1, 0]
    """
    return draw_lines(rgb, [np.concatenate([ring, ring[:2]]) for ring in rings], color=color, width=width)


def draw_grid(
    rgb: NDArray[np.uint8],
    *,
    step: float,
    origin: tuple[float, float] = (0.0, 0.0),
    color: Color = (0, 140, 0),
    width: float = 1.0,
) -> NDArray[np.uint8]:
    """The picture with lines every `step` pixels, two of them through `origin` (y, x): the borders of tiles.

    Raises
    ------
    ValueError
        If `step` is not positive.
    """
    if step <= 0:
        raise ValueError(f"step of a grid is {step}; it must be positive")
    bottom, right = rgb.shape[:2]
    rows = [np.array([[y, 0.0], [y, right]]) for y in np.arange(origin[0] % step, bottom, step)]
    columns = [np.array([[0.0, x], [bottom, x]]) for x in np.arange(origin[1] % step, right, step)]
    return draw_lines(rgb, rows + columns, color=color, width=width)


def draw_scale_bar(rgb: NDArray[np.uint8], *, mpp: float) -> NDArray[np.uint8]:
    """The picture with a bar of a round length in its lower left corner, at most a quarter of its width.

    Without a bar, where even one micron would be longer than that.
    """
    height, width = rgb.shape[:2]
    fitting = [um for um in BAR_UM if um / mpp <= width / 4]
    if not fitting:
        return rgb.copy()
    # "um": the font that Pillow carries has no micro sign.
    text = f"{fitting[-1]} um" if fitting[-1] < 1000 else f"{fitting[-1] // 1000} mm"
    size = max(10, height // 40)
    bar = np.full((round(2.2 * size), round(fitting[-1] / mpp) + size, 3), 255, np.uint8)
    image, plate = Image.fromarray(rgb), Image.fromarray(bar)
    pen = ImageDraw.Draw(plate)
    half = size // 2
    pen.rectangle([half, plate.height - half - size // 4, plate.width - half, plate.height - half], "black")
    pen.text((plate.width / 2, plate.height - size), text, fill="black", anchor="mb", font_size=size)
    image.paste(plate, (half, height - plate.height - half))
    return np.array(image)


def draw_dots(
    rgb: NDArray[np.uint8], points: NDArray[np.floating], *, color: Color, radius: float = 3.0
) -> NDArray[np.uint8]:
    """The picture with a disc at each of `points` (N, 2), as (y, x) in its pixels, ringed in black."""
    image = Image.fromarray(rgb)
    pen = ImageDraw.Draw(image)
    for y, x in points.tolist():
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color, outline=(0, 0, 0))
    return np.array(image)


def tint(
    rgb: NDArray[np.uint8], labels: NDArray[np.integer], colors: Mapping[int, Color], *, strength: float = 0.4
) -> NDArray[np.uint8]:
    """The picture with the pixels of each of `labels` (H, W) mixed with its colour; others stay as they are."""
    out = rgb.copy()
    for label, color in colors.items():
        mask = labels == label
        out[mask] = np.rint(rgb[mask] * (1 - strength) + np.array(color) * strength)
    return out


def draw_lines(
    rgb: NDArray[np.uint8], lines: Iterable[NDArray[np.floating]], *, color: Color, width: float
) -> NDArray[np.uint8]:
    """The picture with lines through `lines`, each (K, 2) of (y, x), over it."""
    lines = list(lines)
    ends = np.array([[line[:, 0].min(), line[:, 0].max()] for line in lines]).reshape(-1, 2)
    out = rgb.copy()
    for top in range(0, len(rgb), BAND):
        band = out[top : top + BAND]
        near = np.flatnonzero((ends[:, 1] >= top - width) & (ends[:, 0] <= top + BAND + width))
        alpha = coverage(band.shape[:2], [lines[i] - (top, 0) for i in near], width=width)
        band[:] = np.rint(band + (np.array(color, float) - band) * alpha[..., None])
    return out


def coverage(
    shape: tuple[int, int], lines: Iterable[NDArray[np.floating]], *, width: float
) -> NDArray[np.float64]:
    """Share of every pixel that lies under a line: (H, W), 0 to 1."""
    mask = Image.new("L", (shape[1] * SUPERSAMPLE, shape[0] * SUPERSAMPLE))
    pen = ImageDraw.Draw(mask)
    # Odd, since Pillow puts a line of even width to one side or the other, by the direction it runs in.
    thick = round(width * SUPERSAMPLE) | 1
    for line in lines:
        # Pillow counts from the centre of the first pixel, we from its corner.
        corners = np.rint(line[:, ::-1] * SUPERSAMPLE - 0.5)
        pen.line([(x, y) for x, y in corners.tolist()], fill=255, width=thick, joint="curve")
    return np.asarray(mask.reduce(SUPERSAMPLE), float) / 255
