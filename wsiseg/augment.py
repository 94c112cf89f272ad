"""Random crops for training: one affine map a crop, then colour in optical density, blur and noise.

Slides differ from training images mostly in stain and sharpness, so that is where the crops vary most:
haematoxylin and eosin by themselves, the stains' hues, brown and pink deposits, and the softness of a 20x
slide that was enlarged to 40x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wsiseg.adipose import add_fat
from wsiseg.debris import add_debris, smooth_field
from wsiseg.stains import STAINS

FARTHEST = 3.0
"""What an elastic shift is at most, in units of its root mean square: so far a crop looks beyond its square."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far crops may vary; every range is drawn uniformly unless it says otherwise.

    zoom : (least, most)              enlargement, log-uniform
    stretch : float                   how many times longer along one direction than across it at most, log-uniform
                                      from 1: nuclei become slender, side by side; their areas stay
    elastic : float                   root mean square of a smooth random shift of every pixel, pixels; 0: none
    haematoxylin, eosin : (least, most)   factor on the stain's density, log-uniform
    no_eosin : float                  share of crops whose eosin nearly vanishes, as in IHC
    hue : float                       standard deviation of each entry of the stain vectors
    deposits : float                  share of crops with smooth brown, pink or blue deposits
    debris : float                    share of crops with flakes or sheets laid over (`wsiseg.debris`)
    fat : float                       share of crops emptied into cells of fat (`wsiseg.adipose`)
    blur : float                      share of crops softened by up to 2.2 times fewer pixels
    sharpen : float                   share of crops sharpened, as some scanners do
    noise : float                     standard deviation of pixel noise at most, in 0..1
    """

    zoom: tuple[float, float] = (0.75, 1.33)
    stretch: float = 1.0
    elastic: float = 0.0
    haematoxylin: tuple[float, float] = (0.4, 1.6)
    eosin: tuple[float, float] = (0.4, 1.6)
    no_eosin: float = 0.3
    immunostain: float = 0.7
    hue: float = 0.04
    deposits: float = 0.35
    debris: float = 0.25
    fat: float = 0.0
    blur: float = 0.5
    sharpen: float = 0.3
    noise: float = 0.03

    def __post_init__(self) -> None:
        if self.stretch < 1:
            raise ValueError("stretch is how many times longer a crop may become: 1, which is none, or more")


def random_crop(
    image: NDArray[np.uint8],
    targets: NDArray[np.integer],
    *,
    size: int,
    rng: np.random.Generator,
    zoom: tuple[float, float],
    stretch: float = 1.0,
    elastic: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """A turned, flipped, sheared, zoomed, stretched and, by about `elastic` pixels, bent square of an image and its target maps.

    Parameters
    ----------
    image : (H, W, 3) uint8
    targets : (T, H, W) int    0 is put in where the square leaves the image; so 0 must mean "not labelled"

    Returns
    -------
    (3, size, size) float32 in 0..1 and (T, size, size) int64
    """
    matrix = _affine(zoom, stretch, rng)  # crop pixel offsets to image pixel offsets, both from the centre
    reach = np.abs(matrix).sum(1) * size / 2 + FARTHEST * elastic
    height, width = image.shape[:2]
    low, high = reach, np.array([height, width]) - reach
    middle = (low + high) / 2
    centre = np.where(low < high, rng.uniform(np.minimum(low, middle), np.maximum(high, middle)), middle)
    y0, x0 = np.maximum(0, np.floor(centre - reach - 2)).astype(int)
    y1, x1 = np.ceil(centre + reach + 2).astype(int)
    piece = torch.from_numpy(np.ascontiguousarray(image[y0:y1, x0:x1].transpose(2, 0, 1))).float() / 255
    marks = torch.from_numpy(np.ascontiguousarray(targets[:, y0:y1, x0:x1])).float()
    grid = _grid(matrix, centre - (y0, x0), size, (piece.shape[1], piece.shape[2]))
    if elastic:
        grid = grid + _bend(size, rng) * elastic * 2 / torch.tensor([piece.shape[2], piece.shape[1]])
    pixels = F.grid_sample(piece[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(marks[None], grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return pixels[0], labels[0].round().long()


def _affine(zoom: tuple[float, float], stretch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    angle, shear = rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15)
    scale = np.exp(-rng.uniform(*np.log(zoom)))
    flip = np.diag([1.0, rng.choice([-1.0, 1.0])])
    matrix: NDArray[np.float64] = scale * _turn(angle) @ np.array([[1.0, shear], [0.0, 1.0]]) @ flip
    if stretch == 1:
        return matrix
    along, turn = np.exp(rng.uniform(0, np.log(stretch)) / 2), _turn(rng.uniform(0, np.pi))
    return matrix @ turn @ np.diag([1 / along, along]) @ turn.T


def _turn(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _grid(
    matrix: NDArray[np.float64], centre: NDArray[np.float64], size: int, shape: tuple[int, int]
) -> Tensor:
    """(1, size, size, 2) sampling grid, as `grid_sample` wants it: (x, y) in -1..1 between the corners."""
    steps = np.arange(size) + 0.5 - size / 2
    scale = 2 / np.array(shape)
    # What a row and what a column of the crop add, (2, size) each.
    down, right = (matrix * scale[:, None]).T[..., None] * steps
    start = centre * scale - 1
    unit = np.empty((1, size, size, 2), np.float32)
    for axis, place in ((1, 0), (0, 1)):
        np.add.outer(down[axis] + start[axis], right[axis], out=unit[0, ..., place], casting="same_kind")
    return torch.from_numpy(unit)


def _bend(size: int, rng: np.random.Generator) -> Tensor:
    """(1, size, size, 2) smooth random shifts of about unit variance; a wave of them is some 64 pixels long."""
    cells = max(4, size // 32)
    coarse = torch.from_numpy(rng.standard_normal((1, 2, cells, cells), dtype=np.float32))
    shifts = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (shifts / shifts.square().mean().sqrt()).clamp(-FARTHEST, FARTHEST).permute(0, 2, 3, 1)


def augmented_crop(
    image: NDArray[np.uint8],
    targets: NDArray[np.integer],
    settings: Augmentation,
    *,
    size: int,
    background: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """A random crop, at times with debris over it, its colours varied; shapes as in `random_crop`.

    `background` is what the targets hold where it is known that there is no nucleus.
    """
    crop, marks = random_crop(
        image,
        targets,
        size=size,
        rng=rng,
        zoom=settings.zoom,
        stretch=settings.stretch,
        elastic=settings.elastic,
    )
    if settings.fat and rng.random() < settings.fat:
        crop, marks = add_fat(crop, marks, background=background, rng=rng)
    if rng.random() < settings.debris:
        crop, marks = add_debris(crop, marks, background=background, rng=rng)
        # Debris is dark. A pale blue flake would be what the spindle nuclei of a stroma are.
        strong = (max(0.9, settings.haematoxylin[0]), max(0.9, settings.haematoxylin[1]))
        settings = replace(settings, no_eosin=0.0, haematoxylin=strong)
    return vary_colour(crop, settings, rng), marks


def vary_colour(pixels: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """(3, H, W) in 0..1, its stains varied in optical density, softened and made noisy."""
    density = -torch.log(pixels.clamp(min=1 / 255))
    stains = STAINS / STAINS.norm(dim=1, keepdim=True)
    amounts = torch.einsum("chw,cs->shw", density, torch.linalg.inv(stains))
    blue, red, _ = amounts
    blue = blue * _log_uniform(settings.haematoxylin, rng)
    faint = rng.random() < settings.no_eosin
    red = red * (rng.uniform(0.0, 0.25) if faint else _log_uniform(settings.eosin, rng))
    brown = amounts[2] * rng.uniform(0.3, 1.5)
    if faint and rng.random() < settings.immunostain:
        brown = brown + _immunostain(blue, rng)
    elif rng.random() < settings.deposits:
        field = _deposit(pixels.shape[1:], rng) * rng.uniform(0.1, 1.0)
        kind = rng.random()
        brown = brown + field * (kind < 0.6)
        red = red + field * (0.6 <= kind < 0.85)
        blue = blue + 0.4 * field * (kind >= 0.85)
    hues = stains + torch.from_numpy(rng.normal(0, settings.hue, (3, 3))).float()
    hues = hues.clamp(min=0.01) / hues.clamp(min=0.01).norm(dim=1, keepdim=True)
    density = torch.einsum("shw,sc->chw", torch.stack([blue, red, brown]), hues)
    density = density + rng.uniform(-0.03, 0.1)
    return _soften(torch.exp(-density).clamp(0, 1), settings, rng)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _deposit(shape: torch.Size, rng: np.random.Generator, *, finest: int = 20) -> Tensor:
    """Smooth blobs in 0..1 that cover about a third of `shape`, some with soft and some with hard edges.

    At most `finest` of them lie side by side.
    """
    field = torch.from_numpy(smooth_field((shape[0], shape[1]), rng, finest=finest))
    return torch.sigmoid((field - 0.5) * float(rng.uniform(2, 12)))


def _immunostain(blue: Tensor, rng: np.random.Generator) -> Tensor:
    """(H, W) density of a brown stain in patches of streaky cytoplasm that spares nuclei or prefers them.

    `blue` (H, W), the density of haematoxylin, says where nuclei are.
    """
    area = _deposit(blue.shape, rng, finest=8) * float(rng.uniform(0.2, 1.6))  # none as small as a nucleus
    streaks = 1 + float(rng.uniform(0, 0.9)) * _streaks(blue.shape, rng)
    dense = float(np.quantile(blue.numpy(), 0.95))  # torch's quantile sorts all pixels
    nuclear = (blue / max(dense, 0.2)).clamp(0, 1)
    return area * streaks.clamp(min=0.05) * (1 + float(rng.uniform(-0.95, 0.5)) * nuclear)


def _streaks(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Noise of about unit variance, 2 to 8 pixels fine across and up to eight times that along one direction."""
    side = max(shape)
    fine = rng.uniform(2, 8)
    cells = (max(4, int(1.5 * side / fine)), max(4, int(1.5 * side / (fine * rng.uniform(1, 8)))))
    noise = torch.from_numpy(rng.standard_normal((1, 1, *cells), dtype=np.float32))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]) / 1.5
    grid = F.affine_grid(torch.from_numpy(turn[None]).float(), [1, 1, *shape], align_corners=False)
    return F.grid_sample(noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0, 0]


def _soften(pixels: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    if rng.random() < settings.blur:
        size = pixels.shape[-1]
        few = int(size / rng.uniform(1.2, 2.2))
        small = F.interpolate(pixels[None], size=(few, few), mode="bilinear", antialias=True)
        pixels = F.interpolate(small, size=(size, size), mode="bilinear")[0]
    if rng.random() < settings.sharpen:
        pixels = pixels + float(rng.uniform(0.3, 1.5)) * (pixels - _mean_of_five(pixels))
    if settings.noise:
        noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, settings.noise)
        pixels = pixels + torch.from_numpy(noise)
    return pixels.clamp(0, 1)


def _mean_of_five(pixels: Tensor) -> Tensor:
    """Mean of the 5 x 5 pixels around each, or of those of them that are inside; torch's pooling takes ten times as long."""
    for axis in (1, 2):
        n = pixels.shape[axis]
        padded = F.pad(pixels, (0, 0, 2, 2) if axis == 1 else (2, 2))
        inside = F.pad(torch.ones(n), (2, 2)).unfold(0, 5, 1).sum(1)
        total = sum(padded.narrow(axis, k, n) for k in range(5))
        pixels = total / (inside[:, None] if axis == 1 else inside)
    return pixels
