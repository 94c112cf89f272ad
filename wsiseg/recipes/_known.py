"""What each recipe says of itself, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsiseg import plugins, recipes

MEASURED = Path(__file__).parent / "measured.json"
"""AJI of each recipe, mean and deviation over its seeds, as `benchmarks/recipes.py` last wrote it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A recipe, in words.

    labels_needed, gives, source     what it learns from, what its nuclei are, and the paper
    measured : str                   "0.512 ± 0.004 (3 seeds)", "0.512 (1 seed)" or "not measured"
    """

    name: str
    labels_needed: str
    gives: str
    source: str
    measured: str


def known() -> Iterator[Known]:
    """Every recipe, in alphabetical order."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    for name in plugins.names(recipes):
        recipe = plugins.load(recipes, name)
        said = told(measured[name]) if name in measured else "not measured"
        yield Known(name, recipe.LABELS_NEEDED, recipe.GIVES, recipe.SOURCE, said)


def told(row: Mapping[str, float | None]) -> str:
    """What was measured, in words; of one seed there is no deviation."""
    if row["deviation"] is None:
        return f"{row['mean']:.3f} (1 seed)"
    return f"{row['mean']:.3f} ± {row['deviation']:.3f} ({row['seeds']} seeds)"
