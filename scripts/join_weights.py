"""Make a model folder of what `scripts/train_folder.py` brought back.

python scripts/join_weights.py configs/spn-ien-small.toml RUN/pieces -o RUN/model
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from wsiseg import plugins, recipes
from wsiseg.config import read_config
from wsiseg.predict import save_model


def main() -> None:
    """Read the pieces, fill the networks, save them with their card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("pieces", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    config = read_config(options.config)
    states: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for piece in sorted(options.pieces.glob("*.pt")):
        for name, weight in torch.load(piece, map_location="cpu", weights_only=True).items():
            network, _, key = name.partition("/")
            states[network][key] = weight
    networks = {}
    for name, build in plugins.load(recipes, config.recipe).networks(config.settings).items():
        networks[name] = build()
        networks[name].load_state_dict(states[name])
    save_model(networks, options.output, config.card())
    print(f"the model lies in {options.output}")


if __name__ == "__main__":
    main()
