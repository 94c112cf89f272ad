"""What a network is taught, as pictures: pseudo-labels over the tissue, for a person to judge before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsiseg.draw import Color, draw_dots, tint
from wsiseg.export import complete
from wsiseg.stages import Networks, Targets, TrainingImage

COLORS: dict[int, Color] = {1: (40, 160, 40), 2: (220, 40, 40)}
"""Background green, nuclei red; what is not labelled stays as it is."""

CLICK: Color = (255, 220, 0)
GAP = 8


def draw_pseudo_labels(image: TrainingImage, targets: Targets, networks: Networks) -> NDArray[np.uint8]:
    """(H, W', 3) uint8: the image with its points, then each map of its targets over it, side by side.

    `targets` are those of the first stage that learns: 2 and more nucleus, 1 background, 0 not labelled; `networks` those
    of a trained model that stand for the stages before it, by stage name.
    """
    sample = image.sample
    panels = [draw_dots(sample.image, sample.points, color=CLICK)]
    maps = np.minimum(targets(sample, image.options, networks), max(COLORS))
    panels += [tint(sample.image, labels, COLORS) for labels in maps]
    gap = np.full((len(sample.image), GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(parts, axis=1)


def write_pseudo_labels(image: TrainingImage, targets: Targets, networks: Networks, folder: Path) -> Path:
    """Draw one image's labels into `folder`; the file's name is the sample's, made safe."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in image.sample.name)
    path = folder / f"{name}.png"
    with complete(path) as temporary:
        Image.fromarray(draw_pseudo_labels(image, targets, networks)).save(temporary, format="PNG")
    return path
