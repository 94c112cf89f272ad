"""Who works on a slide: one file on a shared disk, which a process that is gone holds no longer.

A lease is made with `link`, which only one of several processes can do, on NFS too. Its owner says every
`BEAT` seconds that it is alive by touching it. One that was not touched for `patience` seconds is dead: it is
moved away, which again only one process can do, and made anew. Times are those of the file server alone, so
that clocks of nodes need not agree.

An owner that was thought dead and was only slow finds another's token in its lease, or none: it stops, and
publishes nothing. Should it be stopped between that look and the publishing, the publishing itself cannot
replace what is there (`publish`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from wsiseg.errors import StoreError

log = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between two signs of life."""

PATIENCE = 90.0
"""Seconds without a sign of life after which an owner is dead: nine beats, longer than a shared disk stalls."""


@dataclass(slots=True)
class Lease:
    """A slide that this process works on.

    path : Path
    token : str          tells this owner from every other
    lost : Event         set once the lease is another's
    deaths : int         owners before this one that vanished without finishing another task
    """

    path: Path
    token: str
    content: dict[str, object]
    deaths: int = 0
    lost: threading.Event = field(default_factory=threading.Event)
    _left: threading.Event = field(default_factory=threading.Event)

    def held(self) -> bool:
        """Whether the lease is still this process's."""
        if not self.lost.is_set() and read(self.path).get("token") != self.token:
            self.lost.set()
        return not self.lost.is_set()

    def say(self, **progress: object) -> None:
        """Write how far the work is into the lease; whoever reads it sees all of it or what was before.

        There is a moment between the look at the token and the writing in which another could take the lease:
        it would have to be `patience` seconds old then, and this process has just found it its own.
        """
        if self.held():
            self.content.update(progress)
            _replace(self.path, self.content, self.token)

    def beat(self) -> None:
        """Say, every `BEAT` seconds until the lease is left or lost, that the owner lives."""
        while not self._left.wait(BEAT):
            try:
                if not self.held():
                    return
                os.utime(self.path)
            except OSError as error:  # the disk may be away for a moment; patience is for that
                log.warning("%s: %s; trying again", self.path, error.strerror)

    def leave(self) -> None:
        """Give the lease back."""
        self._left.set()
        if self.held():
            self.path.unlink(missing_ok=True)


def acquire(path: Path, *, done: int = 0, job: str = "", patience: float = PATIENCE) -> Lease | None:
    """The lease at `path`, with its beat begun; None where a living process has it.

    Parameters
    ----------
    done
        Tasks of the slide that are finished: an owner that died without adding to them may have died of it.
    job
        Names the job for whoever looks.
    patience
        Seconds without a sign of life after which an owner is dead.
    """
    dead = _clear(path, patience)
    if dead is None:
        return None
    deaths = 0
    if dead:
        before = dead.get("deaths", 0)
        deaths = 1 + (before if isinstance(before, int) and dead.get("done_at_start") == done else 0)
        log.warning("%s: its owner %s is gone; going on with it", path.stem, owner_of(dead))
    token = uuid4().hex
    content: dict[str, object] = {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job,
        "since": time.time(),
        "done_at_start": done,
        "deaths": deaths,
    }
    if not _create(path, content, token):
        return None
    lease = Lease(path, token, content, deaths)
    threading.Thread(target=lease.beat, name="wsiseg-lease", daemon=True).start()
    return lease


def _clear(path: Path, patience: float) -> dict[str, object] | None:
    """Make way for a new lease: what a dead owner left, {} where there was no lease, None where one lives."""
    quiet = silence(path)
    if quiet is None:
        return {}
    if quiet < patience:
        return None
    dead = read(path)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was first
        return None
    moved = read(aside)
    try:
        if moved.get("token") != dead.get("token"):
            # Between the look and the move another process took the lease: it gets it back.
            os.link(aside, path)
            return None
    except FileExistsError:
        return None
    finally:
        aside.unlink(missing_ok=True)
    return moved or {"deaths": 0}


def silence(path: Path) -> float | None:
    """Seconds since the owner's last sign of life, by the clock of the file server; None without a lease."""
    try:
        # Opened, not asked by name: NFS may answer that from memory for a minute.
        with path.open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    return max(0.0, _now(path.parent) - touched)


def _now(folder: Path) -> float:
    """The file server's time."""
    probe = folder / f".now.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def read(path: Path) -> dict[str, object]:
    """What a lease says; {} where there is none or it cannot be understood."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def owner_of(content: Mapping[str, object]) -> str:
    """Who a lease says it belongs to, for a person.

    >>> owner_of({"host": "node7", "pid": 12, "job": "431_2"})
    'job 431_2 on node7'
    """
    host = content.get("host", "an unknown host")
    if content.get("job"):
        return f"job {content['job']} on {host}"
    return f"process {content['pid']} on {host}" if content.get("pid") else str(host)


def _create(path: Path, content: Mapping[str, object], token: str) -> bool:
    """Make a lease unless there is one; whether it was made."""
    temporary = path.with_name(f".{path.name}.{token}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(
            f"{path.parent}: no lease can be made there ({error.strerror}); a cohort needs a file system with hard links"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _replace(path: Path, content: Mapping[str, object], token: str) -> None:
    temporary = path.with_name(f".{path.name}.{token}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


def publish(made: Path, final: Path) -> bool:
    """Give what was made its final name, unless something has that name; whether it was given.

    Neither `link` nor the renaming of a folder onto one that holds something replaces what is there.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    if made.is_dir():
        return _moved(made, final)
    # Some file systems link within a folder only.
    beside = final.with_name(f".{final.name}.{uuid4().hex}")
    made.rename(beside)
    try:
        os.link(beside, final)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def _moved(folder: Path, final: Path) -> bool:
    try:
        folder.rename(final)
    except OSError:
        if final.exists():
            return False
        raise
    return True
