"""Whether a self-supervised start has learned how many nuclei there are, or how sharp an image is.

    python benchmarks/ranking.py --data FOLDER ENCODER ... [--json]

ENCODER is the `encoder.pt` that a training with `init = "self-supervised"` leaves in its folder. Its count is asked for
squares of the validation images of MultiOrgan: does it order squares of one scale as their true numbers of nuclei do,
does it put an enlarged part below the whole, as it was taught, and does it put a square below itself where that is only
blurred, with every nucleus still there?
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from wsiseg.config import read_config
from wsiseg.recipes._self_supervised import RankingNetwork, part_of
from wsiseg.samples import Sample, read_samples, read_split

CONFIG = Path(__file__).parents[1] / "configs" / "three-class-small.toml"
SIDE = 192
"""Pixels of a square: half a training crop's, as the network is taught."""
BLURRED = 3
"""How many times a square is reduced and enlarged again."""


def main() -> None:
    """Ask every encoder, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoders", type=Path, nargs="+", metavar="ENCODER")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds multiorgan")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    folder = options.data / "multiorgan"
    samples = read_samples(folder, read_split(folder, "val"), from_masks=True)
    rows = [{"encoder": str(path), **asked(loaded(path), samples)} for path in options.encoders]
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else v for v in row.values()) + " |")


def loaded(path: Path) -> RankingNetwork:
    """The network of a start, of the small configuration's size."""
    settings = read_config(CONFIG).settings
    network = RankingNetwork(depth=settings.depth, width=settings.width)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def asked(network: RankingNetwork, samples: list[Sample]) -> dict[str, Any]:
    """Rank correlation with the true numbers, and how often an enlarged part and a blurred square count less."""
    rng = np.random.default_rng(0)
    correlations, parts, blurred = [], [], []
    for sample in samples:
        corners = [
            (y, x)
            for y in range(0, sample.image.shape[0] - SIDE + 1, SIDE // 2)
            for x in range(0, sample.image.shape[1] - SIDE + 1, SIDE // 2)
        ]
        image = torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255
        squares = torch.stack([image[:, y : y + SIDE, x : x + SIDE] for y, x in corners])
        true = [((sample.points >= at) & (sample.points < np.add(at, SIDE))).all(1).sum() for at in corners]
        whole = count(network, squares)
        correlations.append(spearmanr(whole.numpy(), true).statistic)
        parts.append(whole > count(network, torch.cat([part_of(one[None], rng) for one in squares])))
        blurred.append(whole > count(network, blur(squares)))
    return {
        "rank correlation with the number of nuclei, mean over images": float(np.mean(correlations)),
        "an enlarged part counts less": float(torch.cat(parts).float().mean()),
        "the same square blurred counts less": float(torch.cat(blurred).float().mean()),
    }


def count(network: RankingNetwork, squares: Tensor) -> Tensor:
    """(B,) counts of squares (B, 3, S, S)."""
    with torch.no_grad():
        return torch.cat([network(some)[1] for some in squares.split(16)])


def blur(squares: Tensor) -> Tensor:
    """The squares (B, 3, S, S) reduced and enlarged again: all that is gone is detail."""
    small = F.interpolate(squares, scale_factor=1 / BLURRED, mode="area")
    return F.interpolate(small, size=squares.shape[-2:], mode="bilinear", align_corners=False)


if __name__ == "__main__":
    main()
