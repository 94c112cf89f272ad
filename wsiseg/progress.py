"""How far a run is: what the pipeline tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a run.

    stage : str        "segmenting", "joining seams" or "writing"
    done, total : int  tiles, those of an earlier, interrupted run included
    nuclei : int       found so far, before seams are resolved
    rate : float       tiles a second in this run
    """

    stage: str
    done: int
    total: int
    nuclei: int
    rate: float


Watch = Callable[[Progress], None]
"""Called with every `Progress`, from the thread that runs the pipeline."""
