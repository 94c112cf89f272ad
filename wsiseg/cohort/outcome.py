"""How a slide ended: one small file, written once, by the owner of its lease."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from wsiseg.errors import StoreError


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a slide's run.

    state : str          "done" or "failed"
    nuclei : int
    mm2 : float          of tissue
    seconds : float      of the run that ended it, waiting for processors included
    tiles : int          that this run computed
    ended : float        seconds of the epoch
    reason : str         why it failed
    host, job : str      where
    """

    state: str
    nuclei: int = 0
    mm2: float = 0.0
    seconds: float = 0.0
    tiles: int = 0
    ended: float = 0.0
    reason: str = ""
    host: str = ""
    job: str = ""


def outcome_path(state: Path, number: int) -> Path:
    """Where the outcome of slide `number` lies.

    >>> outcome_path(Path("r/.cohort"), 7).as_posix()
    'r/.cohort/000007.json'
    """
    return state / f"{number:06d}.json"


def read_outcome(path: Path) -> Outcome | None:
    """How a slide ended; None where it has not.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); try again") from error
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{path}: damaged; move it and the slide's result away to have the slide done again"
        ) from error


def write_outcome(path: Path, outcome: Outcome) -> bool:
    """Write how a slide ended, unless it has ended already; whether it was written."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(outcome), file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
