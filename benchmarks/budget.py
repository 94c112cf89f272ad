"""What the tables that train many rows have in common: crops a step, plain colours, and which reports were made so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wsiseg.augment import Augmentation

BATCH = 4
"""Crops a step, in all rows: with so few crops, more steps teach far more (`accuracy/README.md`)."""
PLAIN = Augmentation(
    haematoxylin=(1, 1),
    eosin=(1, 1),
    no_eosin=0,
    immunostain=0,
    hue=0,
    deposits=0,
    debris=0,
    blur=0,
    sharpen=0,
    noise=0,
)
"""Crops are turned, flipped, zoomed and sheared, and keep the colours and sharpness that they have."""


def kept_to(report: Mapping[str, Any], **spent: int | str) -> bool:
    """Whether a report tells of this budget."""
    return spent.items() <= report.items()


def finished(report: Path, **spent: int | str) -> bool:
    """Whether a row was run, and with this budget."""
    return report.exists() and kept_to(json.loads(report.read_text()), **spent)


def told(what: str, reports: Iterable[Mapping[str, Any]], **spent: int | str) -> str:
    """What a row is, and that it is to be run again where its budget was another."""
    other = not all(kept_to(report, **spent) for report in reports)
    return what + " (another budget, to be run again)" * other
