"""How far a cohort is: read from its plan, outcomes and leases; nothing is asked of any running process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wsiseg.cohort import lease as leases
from wsiseg.cohort.lease import PATIENCE
from wsiseg.cohort.outcome import outcome_path, read_outcome
from wsiseg.cohort.plan import Plan, Planned
from wsiseg.cohort.slide import lease_path, place_of
from wsiseg.errors import DataError

STATES = ("done", "failed", "running", "todo")


@dataclass(frozen=True, slots=True)
class Row:
    """A slide as it stands.

    slide : Planned
    state : str          one of `STATES`
    nuclei : int         found, or found so far
    share : float        of its tiles that is finished, 0 to 1
    rate : float         tiles a second, while it is running
    seconds : float      that the finished slide took
    who : str            who works or worked on it
    reason : str         why it failed
    """

    slide: Planned
    state: str
    nuclei: int = 0
    share: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    who: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A cohort as it stands.

    rows : of Row
    """

    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Slides in each state."""
        counted = Counter(row.state for row in self.rows)
        return {state: counted[state] for state in STATES}

    @property
    def nuclei(self) -> int:
        """Nuclei of finished slides."""
        return sum(row.nuclei for row in self.rows if row.state == "done")

    @property
    def mm2_per_hour(self) -> float:
        """Tissue that the running processes get through."""
        return 3600 * sum(row.rate * row.slide.mm2 / max(1, row.slide.tiles) for row in self.rows)

    @property
    def seconds_left(self) -> float | None:
        """Until the rest is done at this rate; None while nothing runs."""
        left = sum(row.slide.mm2 * (1 - row.share) for row in self.rows if row.state in ("running", "todo"))
        return 3600 * left / self.mm2_per_hour if self.mm2_per_hour else None


def status(plan: Plan, *, patience: float = PATIENCE) -> Status:
    """How every slide of a cohort stands.

    Raises
    ------
    StoreError
        If an outcome is damaged.
    """
    return Status(tuple(_row(plan, slide, patience) for slide in plan.slides))


def _row(plan: Plan, slide: Planned, patience: float) -> Row:
    if slide.problem:
        return Row(slide, "failed", reason=slide.problem)
    outcome = read_outcome(outcome_path(plan.state, slide.number))
    if outcome is not None:
        who = leases.owner_of({"job": outcome.job, "host": outcome.host})
        share = 1.0 if outcome.state == "done" else 0.0
        return Row(slide, outcome.state, outcome.nuclei, share, 0.0, outcome.seconds, who, outcome.reason)
    seen = leases.look(lease_path(plan, slide))
    if seen is None or not seen.content:
        return Row(slide, "todo")
    tiles, nuclei = _number(seen.content.get("tiles")), int(_number(seen.content.get("nuclei")))
    share, who = tiles / max(1, slide.tiles), leases.owner_of(seen.content)
    if seen.void(plan.state, patience):
        return Row(slide, "todo", nuclei, share, who=f"{who}, gone")
    return Row(slide, "running", nuclei, share, _number(seen.content.get("rate")), who=who)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def retry(plan: Plan, slides: Sequence[str] = ()) -> list[Planned]:
    """Have failed slides done again: all, or those named by path, name or result; returns them.

    What they had finished is kept.

    Raises
    ------
    DataError
        If one that is named is not in the plan, or has not failed.
    """
    failed = [row.slide for row in status(plan).rows if row.state == "failed" and not row.slide.problem]
    for name in slides:
        if not any(_is(slide, name) for slide in failed):
            known = any(_is(slide, name) for slide in plan.slides)
            raise DataError(
                f"{name}: {'has not failed' if known else 'is not in the plan'}; see wsiseg cohort status"
            )
    again = [slide for slide in failed if not slides or any(_is(slide, name) for name in slides)]
    for slide in again:
        (place_of(plan, slide) / "outcome.json").unlink(missing_ok=True)
        outcome_path(plan.state, slide.number).unlink(missing_ok=True)
    return again


def _is(slide: Planned, name: str) -> bool:
    return name in (slide.slide, slide.slide.rpartition("/")[2], slide.output)
