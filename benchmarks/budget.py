"""What the tables that train many rows have in common: crops a step, and which reports were made with as many."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BATCH = 4
"""Crops a step, in all rows: with so few crops, more steps teach far more (`accuracy/README.md`)."""


def finished(report: Path) -> bool:
    """Whether a row was run, and in such batches."""
    return report.exists() and bool(json.loads(report.read_text())["batch"] == BATCH)


def told(what: str, reports: Iterable[Mapping[str, Any]]) -> str:
    """What a row is, and that it is to be run again where its batches were others."""
    others = {report["batch"] for report in reports} - {BATCH}
    return what + "".join(f" (batches of {batch}, to be run again)" for batch in sorted(others))
