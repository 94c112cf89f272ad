"""Who works on a slide: one file on a shared disk, which a process that is gone holds no longer.

A lease is made with `link`, which only one of several processes can do, on NFS too. Its owner says every `beat` seconds
that it is alive by touching it. One that was not touched for `patience` seconds, as the file server's clock has it, is
void: it is removed by whoever alone holds its gate, a file of a moment, and made anew. Some file systems take the times of their
clients, whose clocks differ: so `Watch` wants to have seen it unchanged for a while, by its own clock, as well.

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

PATIENCE = 90.0
"""Seconds without a sign of life after which an owner is dead: longer than a shared disk stalls."""

BEATS = 9
"""Signs of life that an owner gives in that time."""

MISSED = 5
"""Signs of life that must be missing, however little patience somebody has."""

AGAIN = (0.0, 0.5, 2.0)
"""Seconds before each look at one's own lease: another process may be putting it back."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A lease as it was at one moment.

    content : mapping    what it says; {} where that cannot be understood
    touched : float      when its owner last gave a sign of life, by the file server's clock
    """

    content: Mapping[str, object]
    touched: float

    def silence(self, folder: Path) -> float:
        """Seconds since then."""
        return max(0.0, _now(folder) - self.touched)

    def void(self, folder: Path, patience: float) -> bool:
        """Whether its owner counts as dead."""
        beat = self.content.get("beat")
        least = MISSED * beat if isinstance(beat, int | float) else 0.0
        return self.silence(folder) >= max(patience, least)


def look(path: Path) -> Sight | None:
    """A lease as it is now; None where there is none."""
    try:
        # Opened, and all from one opening: NFS may answer by name from memory, and names change hands.
        with path.open("rb") as file:
            return Sight(_understood(file.read()), os.fstat(file.fileno()).st_mtime)
    except OSError:
        return None


def read(path: Path) -> Mapping[str, object]:
    """What a lease says; {} where there is none or it cannot be understood."""
    seen = look(path)
    return {} if seen is None else seen.content


def _understood(text: bytes) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _now(folder: Path) -> float:
    """The file server's time; this machine's, where the folder can only be read."""
    probe = folder / f".now.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        if os.access(folder, os.W_OK):
            probe.unlink(missing_ok=True)


@dataclass(slots=True)
class Watch:
    """What one process has seen of leases, by its own clock.

    patience : float
    """

    patience: float = PATIENCE
    _seen: dict[Path, tuple[Sight, float]] = field(default_factory=dict)

    def unchanged(self, path: Path, sight: Sight) -> float:
        """Seconds for which this process has seen a lease as it is now."""
        before, since = self._seen.get(path, (None, 0.0))
        if before != sight:
            since = time.monotonic()
            self._seen[path] = sight, since
        return time.monotonic() - since


@dataclass(slots=True)
class Lease:
    """A slide that this process works on.

    path : Path
    token : str          tells this owner from every other
    beat : float         seconds between two signs of life
    deaths : int         owners before this one that vanished without finishing another task
    lost : Event         set once the lease is another's
    """

    path: Path
    token: str
    content: dict[str, object]
    beat: float
    deaths: int = 0
    lost: threading.Event = field(default_factory=threading.Event)
    _left: threading.Event = field(default_factory=threading.Event)

    def held(self) -> bool:
        """Whether the lease is still this process's.

        A disk that does not answer says nothing about it: others will see the silence, and `publish` replaces nothing.
        """
        for wait in AGAIN:
            if self.lost.is_set() or self._left.wait(wait):
                break
            try:
                if _understood(self.path.read_bytes()).get("token") == self.token:
                    return True
            except FileNotFoundError:
                continue
            except OSError:
                return True
            break
        self.lost.set()
        return False

    def say(self, **progress: object) -> None:
        """Write how far the work is into the lease; whoever reads it sees all of it or what was before.

        There is a moment between the look at the token and the writing in which another could take the lease:
        it would have to be `patience` seconds old then, and this process has just found it its own.
        """
        self.content.update(progress)
        if not self.held():
            return
        try:
            _replace(self.path, self.content, self.token)
        except OSError as error:  # it is only told, not needed
            log.warning("%s: progress cannot be written (%s)", self.path, error.strerror)

    def keep_alive(self) -> None:
        """Give signs of life until the lease is left or lost."""
        while not self._left.wait(self.beat):
            try:
                if not self.held():
                    return
                os.utime(self.path)
            except OSError as error:  # the disk may be away for a moment; patience is for that
                log.warning("%s: %s; trying again", self.path, error.strerror)

    def leave(self) -> None:
        """Give the lease back."""
        held = self.held()
        self._left.set()
        if held:
            self.path.unlink(missing_ok=True)


def acquire(
    path: Path, *, done: int = 0, job: str = "", patience: float = PATIENCE, watch: Watch | None = None
) -> Lease | None:
    """The lease at `path`, alive from now on; None where a living process has it.

    Parameters
    ----------
    done
        Tasks of the slide that are finished: an owner that died without adding to them may have died of it.
    job
        Names the job for whoever looks.
    patience
        Seconds without a sign of life after which an owner is dead; a ninth of it is this owner's beat.
    watch
        What this process saw before: a lease is not taken from anyone whom it has not seen silent for two beats.

    Raises
    ------
    StoreError
        If no lease can be made there.
    """
    dead = _clear(path, patience, watch)
    if dead is None:
        return None
    deaths = 0
    if dead:
        before = dead.get("deaths", 0)
        deaths = 1 + (before if isinstance(before, int) and dead.get("done_at_start") == done else 0)
        log.warning("%s: its owner, %s, is gone; going on with it", path.stem, owner_of(dead))
    token, beat = uuid4().hex, max(0.05, patience / BEATS)
    content: dict[str, object] = {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job,
        "since": time.time(),
        "beat": beat,
        "done_at_start": done,
        "deaths": deaths,
    }
    if not _create(path, content, token):
        return None
    lease = Lease(path, token, content, beat, deaths)
    threading.Thread(target=lease.keep_alive, name="wsiseg-lease", daemon=True).start()
    return lease


def _clear(path: Path, patience: float, watch: Watch | None) -> Mapping[str, object] | None:
    """Make way for a new lease: what a dead owner left, {} where there was no lease, None where one lives."""
    seen = look(path)
    if seen is None:
        return {}
    quiet = watch.unchanged(path, seen) if watch else patience
    if quiet < 2 * patience / BEATS or not seen.void(path.parent, patience):
        return None
    gate = path.with_name(f".{path.name}.gate")
    if not _entered(gate, patience):
        return None
    try:
        # Since the look its owner may have spoken, or another may have taken it.
        if look(path) != seen:
            return None
        path.unlink(missing_ok=True)
    finally:
        gate.unlink(missing_ok=True)
    return seen.content or {"deaths": 0}


def _entered(gate: Path, patience: float) -> bool:
    """Whether this process, and no other, may now remove a void lease; one that died doing so is waited for once."""
    try:
        os.close(os.open(gate, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        left = look(gate)
        if left is not None and left.silence(gate.parent) >= patience:
            gate.unlink(missing_ok=True)
        return False
    return True


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
        # A server may have done it and its answer been lost: then there are two names of one file.
        return temporary.stat().st_nlink == 2
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
        beside.unlink()
        return False
    except BaseException:
        beside.rename(made)
        raise
    beside.unlink()
    return True


def _moved(folder: Path, final: Path) -> bool:
    try:
        folder.rename(final)
    except OSError:
        if final.exists():
            return False
        raise
    return True
