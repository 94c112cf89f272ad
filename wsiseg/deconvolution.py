"""How much of each stain a pixel holds: optical density, colour deconvolution, and the vectors it needs.

Densities are those of QuPath: to base 10, against a white of 255 unless told otherwise, no channel below 1. A
third stain, at right angles to the two, takes what they do not explain (Ruifrok and Johnston 2001).
"""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import ConfigError

log = logging.getLogger(__name__)

Vector = tuple[float, float, float]

LEAST_ANGLE = 5.0
"""Degrees between two stains, at least: what is told apart by less is noise."""

FAINT, DARK = 0.05, 1.0
"""Optical densities that every channel of a pixel must lie between to be stained tissue (as in QuPath)."""

PERCENTILE = 1.0
"""Of the angles of stained pixels, from either end (Macenko et al. 2009, alpha)."""

LEAST_PIXELS = 1_000
"""Stained pixels from which vectors are estimated, at least."""

FAR = 30.0
"""Degrees from the default vector beyond which an estimated one is no such stain."""


@dataclass(frozen=True, slots=True)
class Stains:
    """Two stains.

    names : of str           as they begin the names of measurements
    vectors : of (r, g, b)   optical density, of unit length
    background : (r, g, b)   of bare glass, 8 bits
    """

    names: tuple[str, str]
    vectors: tuple[Vector, Vector]
    background: Vector = (255.0, 255.0, 255.0)

    def facts(self) -> dict[str, list[float]]:
        """Names, vectors and background as plain values, for files."""
        stains = {name: list(vector) for name, vector in zip(self.names, self.vectors, strict=True)}
        return {**stains, "background": list(self.background)}

    def densities(self) -> NDArray[np.float64]:
        """(3, 256) optical density of every 8-bit value of each channel; never negative."""
        values = np.maximum(np.arange(256.0), 1)
        table: NDArray[np.float64] = -np.log10(values / np.array(self.background)[:, None])
        return np.maximum(table, 0)

    def unmixing(self) -> NDArray[np.float64]:
        """(3, 2): a pixel's optical densities times this are its amounts of both stains."""
        residual = np.cross(*np.array(self.vectors))
        basis = np.stack([*self.vectors, residual / np.linalg.norm(residual)])
        matrix: NDArray[np.float64] = np.linalg.inv(basis)[:, :2]
        return matrix


H_E = Stains(("Hematoxylin", "Eosin"), ((0.65111, 0.70119, 0.29049), (0.2159, 0.8012, 0.5581)))
H_DAB = Stains(("Hematoxylin", "DAB"), ((0.65111, 0.70119, 0.29049), (0.26917, 0.56824, 0.77759)))
"""QuPath's defaults."""

CHOICES = {
    "estimate": (H_E, True),
    "estimate-h-dab": (H_DAB, True),
    "h-e": (H_E, False),
    "h-dab": (H_DAB, False),
}


@dataclass(frozen=True, slots=True)
class StainChoice:
    """What was asked for: these stains, or their vectors as a slide has them.

    stains : Stains
    estimate : bool
    """

    stains: Stains
    estimate: bool


def read_stains(text: str) -> StainChoice:
    """What `--stains` asks for.

    Parameters
    ----------
    text
        `estimate`, `estimate-h-dab`, `h-e`, `h-dab`; six numbers (red, green, blue of haematoxylin, then of
        eosin); or the JSON that QuPath writes for `setColorDeconvolutionStains`, or a .json or .toml file of it.

    Raises
    ------
    ConfigError
        If it is none of these, or the vectors cannot tell two stains apart.

    Examples
    --------
    >>> read_stains("h-dab").stains.names
    ('Hematoxylin', 'DAB')
    >>> read_stains("3,4,0, 0,0,2").stains.vectors
    ((0.6, 0.8, 0.0), (0.0, 0.0, 1.0))
    """
    if text in CHOICES:
        return StainChoice(*CHOICES[text])
    if text.lstrip().startswith("{"):
        return StainChoice(_from_values(_parsed(text, "--stains", json.loads), "--stains"), estimate=False)
    path = Path(text)
    if path.suffix.lower() in (".json", ".toml"):
        parse = tomllib.loads if path.suffix.lower() == ".toml" else json.loads
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--stains {path}: cannot be read ({error})") from error
        where = f"--stains {path}"
        return StainChoice(_from_values(_parsed(content, where, parse), where), estimate=False)
    values = _numbers(text)
    if values is None:
        raise ConfigError(
            f"--stains {text!r}: give {', '.join(CHOICES)}, a .json or .toml file, "
            "or six numbers with commas between them"
        )
    if len(values) != 6:
        raise ConfigError(
            f"--stains {text!r}: has {len(values)} numbers; six are needed, three for each of two stains"
        )
    vectors = [values[:3], values[3:]]
    return StainChoice(_checked(H_E.names, vectors, H_E.background, "--stains"), estimate=False)


def _parsed(text: str, where: str, parse: Any) -> Mapping[str, Any]:
    try:
        values = parse(text)
    except ValueError as error:
        raise ConfigError(f"{where}: cannot be understood ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: is no table of values; expected 'Stain 1', 'Values 1' and so on")
    return values


def _from_values(values: Mapping[str, Any], where: str) -> Stains:
    """Stains as QuPath writes them: "Stain 1", "Values 1", "Stain 2", "Values 2" and maybe "Background"."""
    names, vectors = [], []
    for number in (1, 2):
        for key in (f"Stain {number}", f"Values {number}"):
            if key not in values:
                raise ConfigError(
                    f"{where}: has no {key!r}; 'Stain 1', 'Values 1', 'Stain 2', 'Values 2' are needed"
                )
        names.append(str(values[f"Stain {number}"]).strip())
        vectors.append(_triple(values[f"Values {number}"], f"{where}: 'Values {number}'"))
    background = _triple(values.get("Background", [255, 255, 255]), f"{where}: 'Background'")
    if not all(1 <= value <= 255 for value in background):
        raise ConfigError(f"{where}: 'Background' is {background}; each must be 1 to 255")
    return _checked(names, vectors, background, where)


def _triple(value: Any, where: str) -> Vector:
    """Three numbers, from text or a list."""
    numbers = _numbers(value if isinstance(value, str) else ",".join(map(str, np.ravel(value).tolist())))
    if numbers is None or len(numbers) != 3:
        raise ConfigError(f"{where} is {value!r}; three numbers are expected (red, green, blue)")
    return numbers[0], numbers[1], numbers[2]


def _numbers(text: str) -> list[float] | None:
    """Finite numbers with commas or blanks between them; None where it is anything else."""
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        return None
    return values if values and np.isfinite(values).all() else None


def _checked(
    names: Sequence[str], vectors: Sequence[Sequence[float]], background: Vector, where: str
) -> Stains:
    """Stains of unit length, whatever length was given.

    Raises
    ------
    ConfigError
        If a vector has no direction, both have the same, or a name is missing or comes twice.
    """
    for vector in vectors:
        if min(vector) < 0 or not np.linalg.norm(vector) > 0:
            raise ConfigError(
                f"{where}: the stain vector {' '.join(map(str, vector))} is no optical density; "
                "three numbers from 0, not all 0, are expected"
            )
    if not all(names) or names[0] == names[1]:
        raise ConfigError(f"{where}: the stains are named {names[0]!r} and {names[1]!r}; give two names")
    stains = Stains((names[0], names[1]), (_unit(vectors[0]), _unit(vectors[1])), background)
    if angle(*stains.vectors) < LEAST_ANGLE:
        raise ConfigError(
            f"{where}: the stain vectors {stains.vectors[0]} and {stains.vectors[1]} are parallel "
            f"(less than {LEAST_ANGLE:g} degrees apart); no pixel could be told apart by them"
        )
    return stains


def _unit(vector: Sequence[float] | NDArray[np.floating]) -> Vector:
    """Of unit length; rounded, so that every file says what was computed with."""
    r, g, b = (np.asarray(vector, float) / np.linalg.norm(vector)).round(5).tolist()
    return r, g, b


def angle(one: Vector, other: Vector) -> float:
    """Degrees between two vectors.

    >>> angle((1, 0, 0), (0, 2, 0))
    90.0
    """
    cosine = np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def estimated(stains: Stains, rgb: NDArray[np.uint8]) -> Stains:
    """The stains with vectors as some tissue has them (Macenko et al. 2009).

    In the plane of most variance of the optical densities of stained pixels, the two vectors are the 1st and the
    99th percentile of their directions. Which pixels count as stained is QuPath's rule, not the paper's: every
    channel between 0.05 and 1. The paper's 0.15 for every channel leaves out pure eosin, which hardly takes up red.

    Parameters
    ----------
    stains
        Names and background, and the defaults that are kept, with a warning, where there is too little stained
        tissue or what is found are no such stains.
    rgb : (..., 3) uint8
        Pixels of tissue.
    """
    density = stains.densities()
    pixels = np.stack([density[c, rgb[..., c].reshape(-1)] for c in range(3)], axis=1)
    pixels = pixels[((pixels >= FAINT) & (pixels <= DARK)).all(1)]
    if len(pixels) < LEAST_PIXELS:
        log.warning("stain vectors: only %d stained pixels; the default ones are used", len(pixels))
        return stains
    plane = np.linalg.eigh(np.cov(pixels.T))[1][:, [2, 1]]
    plane *= np.where(plane.sum(0) < 0, -1, 1)
    directions = np.arctan2(*(pixels @ plane).T[::-1])
    ends = np.percentile(directions, [PERCENTILE, 100 - PERCENTILE])
    found = [np.maximum(plane @ [np.cos(a), np.sin(a)], 0) for a in ends]
    # Haematoxylin is the one that takes up more of the red.
    first, second = (_unit(v) for v in sorted(found, key=lambda v: -v[0] / np.linalg.norm(v)))
    apart = angle(first, second)
    strange = [
        name
        for name, vector, usual in zip(stains.names, (first, second), stains.vectors, strict=True)
        if angle(vector, usual) > FAR
    ]
    if apart < LEAST_ANGLE or strange:
        why = (
            f"{' and '.join(strange)} would be far from usual"
            if strange
            else f"only {apart:.0f} degrees apart"
        )
        log.warning("stain vectors: %s; the default ones are used, or give --stains", why)
        return stains
    other = H_DAB if stains.names == H_E.names else H_E
    if angle(second, other.vectors[1]) + FAR / 3 < angle(second, stains.vectors[1]):
        log.warning(
            "stain vectors: the second looks like %s, not %s; see --stains", other.names[1], stains.names[1]
        )
    return replace(stains, vectors=(first, second))
