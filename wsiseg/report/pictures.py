"""Pictures of a report, as text that goes into the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

COLOUR = "#5b3a8c"


def as_jpeg(rgb: NDArray[np.uint8], *, quality: int = 85) -> str:
    """A picture (H, W, 3) as a data URL."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def shrunk(rgb: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """A picture of at most `longest` pixels a side."""
    image = Image.fromarray(rgb)
    image.thumbnail((longest, longest))
    return np.asarray(image)


def density_map(
    thumbnail: NDArray[np.uint8], density: NDArray[np.floating], field: float, tissue: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The thumbnail in grey, with a field's nuclei per mm2 as a colour; `field` is its side in thumbnail pixels.

    Fields outside `tissue`, as large as `density`, stay grey.
    """
    grey = np.repeat(thumbnail.mean(-1, keepdims=True), 3, axis=2)
    top = float(np.percentile(density[tissue], 99)) if tissue.any() else 1.0
    colours = mpl.colormaps["viridis"](np.clip(density / max(top, 1.0), 0, 1))[..., :3] * 255
    y, x = (
        np.minimum((np.arange(n) / field).astype(int), m - 1)
        for n, m in zip(grey.shape, density.shape, strict=False)
    )
    here = np.ix_(y, x)
    mixed = 0.35 * grey + 0.65 * colours[here]
    return np.where(tissue[here][..., None], mixed, grey).astype(np.uint8)


def histogram(values: NDArray[np.floating], label: str, *, limits: tuple[float, float] | None = None) -> str:
    """A histogram as SVG; its ends are the half and the 99.5th percentile, unless `limits` are given."""
    known = values[np.isfinite(values)]
    low, high = limits or (np.percentile(known, (0.5, 99.5)) if len(known) else (0.0, 1.0))
    figure = Figure(figsize=(3.2, 1.9), layout="constrained")
    axes = figure.subplots()
    axes.hist(known, bins=40, range=(float(low), float(max(high, low + 1e-6))), color=COLOUR)
    axes.set_xlabel(label, fontsize=9)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return as_svg(figure)


def scatter(x: Sequence[float], y: Sequence[float], flagged: Sequence[bool], labels: tuple[str, str]) -> str:
    """Points as SVG, those flagged in red."""
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    colours = ["#c0392b" if f else COLOUR for f in flagged]
    axes.scatter(x, y, s=14, c=colours)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1.05 * max(x)), ylim=(0, 1.05 * max(y)))
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """The figure's SVG element; no time and no random name is in it."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "wsiseg", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
