"""Nuclei of an image in memory, as a label image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from wsiseg import nuclei, predict
from wsiseg.checks import check_range
from wsiseg.errors import ConfigError
from wsiseg.job import make_settings
from wsiseg.models import DEFAULT, ModelRef, describe, find_model
from wsiseg.nuclei import NucleusTable
from wsiseg.result import by_model
from wsiseg.slides.readers.flat import FlatImage
from wsiseg.slides.resample import PlanView
from wsiseg.stitch import claim, computed_cores, resolve
from wsiseg.tiling import STRIDE, check_tile_size, make_plan
from wsiseg.worker import segment_tiles


def segment_image(
    rgb: NDArray[np.uint8],
    *,
    mpp: float,
    model: str | Path = DEFAULT,
    device: str = "auto",
    tile_size: int = 1536,
    threshold: float | None = None,
    min_area_um2: float | None = None,
    flips: int = 1,
) -> NDArray[np.int32]:
    """Find every nucleus of an image.

    The image is brought to the model's mpp and mirrored at its borders; one that is larger than a tile is
    cut as a slide is.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.
    mpp : float
        Microns per pixel of `rgb`; 0.05 to 5.
    model
        Name of a bundled model, or a model folder.
    device
        auto, cpu, cuda or cuda:N.
    tile_size
        Side of a tile without its halo, pixels at the model's mpp; a multiple of 64.
    threshold, min_area_um2
        Foreground probability and smallest nucleus, instead of the model's own.
    flips
        1, 4 or 8 views of the image, flipped and turned, that are averaged.

    Returns
    -------
    (H, W) int32    0 is background; labels are 1..n without gaps

    Raises
    ------
    InputError
        If something that was given cannot be used.

    Examples
    --------
    >>> from skimage.data import immunohistochemistry
    >>> labels = segment_image(immunohistochemistry()[:200, :200], mpp=0.5)
    >>> labels.shape, bool(labels.max() > 0)
    ((200, 200), True)
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ConfigError(f"the image is {rgb.dtype} {rgb.shape}; (H, W, 3) uint8 is expected")
    check_range("mpp", mpp, 0.05, 5)
    check_tile_size(tile_size)
    folder = find_model(model)
    card = describe(folder)
    loaded = predict.load(ModelRef(card.recipe, str(folder), predict.check_device(device)))
    settings = make_settings(card, threshold=threshold, min_area_um2=min_area_um2, flips=flips)
    view = PlanView(FlatImage(rgb), mpp, card.mpp)
    core = min(tile_size, -(-max(view.shape) // STRIDE) * STRIDE)
    plan = make_plan(view.shape, mpp=card.mpp, core=core, halo=card.halo)
    own = partial(claim, shape=plan.shape, computed=computed_cores(plan))
    claims = nuclei.concatenate([segment_tiles(loaded, view, task, own, settings) for task in plan.tasks])
    return painted(resolve(claims, plan, **by_model(card)), (rgb.shape[0], rgb.shape[1]), scale=view.scale)


def painted(table: NucleusTable, shape: tuple[int, int], *, scale: float) -> NDArray[np.int32]:
    """(H, W) int32: the nuclei, outlines times `scale`, as labels 1..n without gaps.

    A pixel whose centre lies in two outlines is the first nucleus's; a nucleus without a pixel is left out.
    """
    labels = np.zeros(shape, np.int32)
    count = 0
    for i in range(len(table)):
        y, x = (table.ring(i) * scale - 0.5).T
        inside = polygon(y, x, shape)  # type: ignore[no-untyped-call]
        free = labels[inside] == 0
        if free.any():
            count += 1
            labels[inside[0][free], inside[1][free]] = count
    return labels
