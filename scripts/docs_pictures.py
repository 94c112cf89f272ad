"""Picture of how nuclei are found, for the documentation: what the networks see of a piece of a slide.

python scripts/docs_pictures.py SLIDE [--region X,Y,SIDE] [-o docs/images/how.png]
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from wsiseg.geometry import Rect
from wsiseg.models import DEFAULT, ModelRef, describe, find_model
from wsiseg.predict import load
from wsiseg.slides.opening import open_slide, resolve_mpp
from wsiseg.slides.resample import PlanView
from wsiseg.slides.slide import SlideRef


def main() -> None:
    """Look at a piece of a slide and draw what is seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide")
    parser.add_argument("--region", default="15150,4260,160", help="X,Y,SIDE in pixels of the model's scale")
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/how.png"))
    options = parser.parse_args()
    x0, y0, side = map(int, options.region.split(","))
    folder = find_model(options.model)
    model = load(ModelRef(describe(folder).recipe, str(folder)))
    ref, part = SlideRef(options.slide), Rect(y0, x0, y0 + side, x0 + side)
    with closing(open_slide(ref)) as slide:
        image = PlanView(slide, resolve_mpp(slide, ref), model.card.mpp).read(part.grow(192))
    maps, inside = model.predict_whole(image)
    labels, _ = model.group(maps, Rect(0, 0, *maps.prob.shape[1:]))
    shown = slice(192, 192 + side)
    prob, labels = (a[inside][shown, shown] for a in (maps.prob[0], labels))
    assert maps.embedding is not None
    offsets = maps.embedding[:2, *inside][:, shown, shown].astype(np.float32)
    tissue = image[shown, shown]
    panels = {
        "tissue": tissue,
        "SPN: probability of a nucleus": prob,
        "IEN: where each pixel's nucleus is": directions(offsets, prob >= model.settings.threshold),
        "nuclei": outlined(tissue, labels),
    }
    figure = Figure(figsize=(12, 3.3), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        axes.imshow(panel, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    figure.savefig(options.output, dpi=110)


def directions(offsets: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H, W, 3) the direction of offsets (2, H, W) as a hue, their length as saturation; white outside the mask."""
    angle, length = np.arctan2(*offsets), np.hypot(*offsets)
    colours: NDArray[np.float64] = hsv_to_rgb(
        np.stack([angle / (2 * np.pi) % 1, np.clip(length / 2, 0, 1), np.ones_like(angle)], axis=-1)
    )
    return np.where(mask[..., None], colours, 1.0)


def outlined(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image with the labels' outlines."""
    drawn = image.copy()
    drawn[find_boundaries(labels, mode="inner")] = (20, 160, 60)
    return drawn


if __name__ == "__main__":
    main()
