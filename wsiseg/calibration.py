"""How likely a nucleus is one: the probability that its outline meets a true nucleus's at an IoU above 0.5.

A network's mean foreground probability says how sure it is of pixels. Whether the outline fits depends on more:
small and ragged ones fail more often. A logistic regression on what is known of every nucleus, fitted where masks
are at hand and never on training images, makes one number of it (Platt 1999, with more than one feature).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = ("logit", "log_area", "log_area_squared", "solidity")
"""Log odds of the mean foreground probability; logarithm of the area in square microns, and its square; the area as a
share of the convex hull's. More (spread of probabilities, border, eccentricity, spread of embeddings) did not lower
the loss on images left out."""

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted logistic regression.

    weights : name -> float    of each of `FEATURES`, and "intercept"
    about                      what it was fitted on: for people
    """

    weights: Mapping[str, float]
    about: Mapping[str, Any]

    def probability(
        self, score: NDArray[np.floating], area: NDArray[np.floating], solidity: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """(N,) float32 probability that each nucleus meets a true one.

        Parameters
        ----------
        score : (N,)       mean foreground probability
        area : (N,)        square microns
        solidity : (N,)    0 to 1
        """
        return self.of(features(score, area, solidity)).astype(np.float32)

    def of(self, measured: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N,) the same of `features` (N, 4)."""
        odds = measured @ [self.weights[name] for name in FEATURES] + self.weights["intercept"]
        return np.asarray(1 / (1 + np.exp(-odds)))


def features(
    score: NDArray[np.floating], area: NDArray[np.floating], solidity: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(N, 4) what `FEATURES` names."""
    sure = np.clip(np.asarray(score, np.float64), 1e-3, 1 - 1e-3)
    log_area = np.log(np.maximum(np.asarray(area, np.float64), 1e-3))
    # A ring that is no polygon has no solidity.
    firm = np.nan_to_num(np.asarray(solidity, np.float64), nan=1.0)
    return np.stack([np.log(sure / (1 - sure)), log_area, log_area**2, firm], axis=1)


def fit(measured: NDArray[np.floating], met: NDArray[np.bool_], about: Mapping[str, Any]) -> Calibration:
    """The regression of highest likelihood, hardly regularised.

    Parameters
    ----------
    measured : (N, 4)    `features`
    met : (N,) bool      whether each nucleus meets a true one; both must occur

    Raises
    ------
    ValueError
        If all nuclei meet one, or none does.
    """
    if not met.any() or met.all():
        raise ValueError(f"{met.sum()} of {len(met)} nuclei meet a true one; a fit needs some of both")
    from sklearn.linear_model import LogisticRegression

    middle, spread = measured.mean(0), np.maximum(measured.std(0), 1e-9)
    found = LogisticRegression(C=10.0, max_iter=1000).fit((measured - middle) / spread, met)
    weights = found.coef_[0] / spread
    named = {name: round(float(w), 6) for name, w in zip(FEATURES, weights, strict=True)}
    return Calibration({**named, "intercept": round(float(found.intercept_[0] - weights @ middle), 6)}, about)


def left_out(
    measured: NDArray[np.floating], met: NDArray[np.bool_], image: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(N,) the probability of each nucleus by a fit without its image, (N,): what an unseen image would get.

    NaN where the other images hold nuclei of one kind only.
    """
    found = np.full(len(met), np.nan)
    for one in np.unique(image):
        here = image == one
        if len(np.unique(met[~here])) == 2:
            found[here] = fit(measured[~here], met[~here], {}).of(measured[here])
    return found


@dataclass(frozen=True, slots=True)
class Bin:
    """Nuclei whose probability lies between two numbers: how many, what was said of them, and what was so."""

    low: float
    high: float
    nuclei: int
    said: float
    met: float


def reliability(probability: NDArray[np.floating], met: NDArray[np.bool_]) -> list[Bin]:
    """Bins of equal width that hold a nucleus.

    >>> reliability(np.array([0.92, 0.98]), np.array([True, False]))
    [Bin(low=0.9, high=1.0, nuclei=2, said=0.95, met=0.5)]
    """
    which = np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
    return [
        Bin(
            round(int(i) / BINS, 3),
            round((int(i) + 1) / BINS, 3),
            int((which == i).sum()),
            float(probability[which == i].mean()),
            float(met[which == i].mean()),
        )
        for i in np.unique(which)
    ]


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far what was said is from what was so, averaged over nuclei (Naeini et al. 2015)."""
    total = sum(b.nuclei for b in bins)
    return sum(b.nuclei * abs(b.said - b.met) for b in bins) / total if total else float("nan")
