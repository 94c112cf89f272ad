"""The working store: what a running job has finished, so that a stopped one goes on where it was.

    .out.geojson.wsiseg/        beside the first output, or in the work folder
        settings.json           everything that the nuclei depend on
        lock                    held by the process that writes; a dead one holds nothing
        000000.npz              the nuclei of task 0, and so on; a file that is there is complete
        nuclei.zarr             the nuclei of the slide, once seams are resolved; complete, if it is there

It is one folder a slide. Which tiles make up a task is fixed by the plan, so the files of a stopped run and
those of the run that goes on are, byte for byte, the files of a run that was never stopped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsiseg.errors import StoreError
from wsiseg.nuclei import NucleusTable, Rings

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system says that was mounted without locks, as some shared ones are."""

FIELDS = ("centroid", "area", "score", "label", "tile", "vertices", "offsets")


def store_path(output: Path, work_dir: Path | None = None) -> Path:
    """Where the working store of a job lies whose first output is `output`.

    >>> store_path(Path("a/out.geojson")).as_posix()
    'a/.out.geojson.wsiseg'
    """
    return (work_dir or output.parent) / f".{output.name}.wsiseg"


@dataclass(frozen=True, slots=True)
class WorkingStore:
    """An open working store; `working_store` makes one.

    path : Path
    """

    path: Path

    @property
    def merged(self) -> Path:
        """Where the nuclei of the slide are put together."""
        return self.path / "nuclei.zarr"

    def done(self) -> frozenset[int]:
        """Tasks that are finished."""
        return frozenset(int(file.stem) for file in self.path.glob("[0-9]*.npz"))

    def commit(self, task: int, nuclei: NucleusTable) -> None:
        """Keep what a task found; once this returns, no crash loses it.

        Raises
        ------
        StoreError
            If it cannot be written (the disk is full, say).
        """
        with writing(self._file(task)) as file:
            np.savez(file, allow_pickle=False, **to_arrays(nuclei))

    def read(self, task: int) -> NucleusTable:
        """What a finished task found.

        Raises
        ------
        StoreError
            If its file is damaged.
        """
        path = self._file(task)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return from_arrays(arrays)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise StoreError(
                f"{path}: damaged ({error}); delete this file to have it computed again"
            ) from error

    def tables(self) -> Iterator[NucleusTable]:
        """What every finished task found, in the order of the plan."""
        return (self.read(task) for task in sorted(self.done()))

    def remove(self) -> None:
        """Delete the store: its nuclei are in an output now."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, task: int) -> Path:
        return self.path / f"{task:06d}.npz"


@contextmanager
def working_store(
    path: Path, settings: Mapping[str, object], *, replace: bool = False
) -> Iterator[WorkingStore]:
    """Open the store at `path`, or make it; only this process may use it until it is left.

    A store in which nothing was finished is removed when it is left.

    Parameters
    ----------
    path
        Its folder.
    settings
        Everything that the nuclei depend on, as JSON knows it.
    replace
        Whether a store of other settings is deleted instead of refused.

    Raises
    ------
    StoreError
        If another process is using it, if it was made with other settings (each is named), or if it cannot
        be written.
    """
    with locked(path) as lock:
        store = WorkingStore(path)
        try:
            settle(store, settings, replace=replace)
            yield store
        finally:
            # Whoever took this process for dead may have put its folder aside, and work in another of that name.
            if same_file(lock, path / "lock") and not store.done():
                store.remove()


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold the lock of the store at `path`, which is made if need be; gives the open lock file.

    Raises
    ------
    StoreError
        If another process holds it, or the folder cannot be made.
    """
    with lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{path}: another process is working on this; wait for it, or stop it"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise StoreError(f"{path}: cannot be locked ({error.strerror})") from error
            log.warning("%s: this file system has no locks; see to it that no other run writes there", path)
        # The process that held it before may have deleted the folder between our open and our lock.
        if not same_file(file, path / "lock"):
            raise StoreError(f"{path}: another process has just finished with this; start again")
        yield file


def lock_file(path: Path) -> IO[bytes]:
    """The open lock file of the store at `path`."""
    try:
        path.mkdir(exist_ok=True)
        return (path / "lock").open("ab")
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}); choose another --work-dir"
        ) from error


def same_file(file: IO[bytes], path: Path) -> bool:
    """Whether the open `file` is what lies at `path`."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def settle(store: WorkingStore, settings: Mapping[str, object], *, replace: bool) -> None:
    """Make sure that the store is one of `settings`: refuse it, empty it or begin it.

    Raises
    ------
    StoreError
        Naming every setting that differs.
    """
    path = store.path / "settings.json"
    now = json.loads(json.dumps(settings))
    then = read_settings(path)
    changed = {} if then is None else differences(then, now)
    if changed and not replace:
        named = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in changed.items())
        raise StoreError(
            f"{store.path}: an unfinished run had other settings ({named}); "
            "give its settings to go on, or --overwrite to start afresh"
        )
    if changed or then is None:
        for file in (*store.path.glob("[0-9]*.npz"), store.merged):
            _remove(file)
        with writing(path) as out:
            out.write(json.dumps(now, indent=2).encode())
    for leftover in store.path.glob("*.tmp"):
        _remove(leftover)


def _remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_settings(path: Path) -> dict[str, Any] | None:
    """Settings of a store; None where it has none yet, or they are unreadable and nothing relies on them."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Settings whose values differ, with both values, as text.

    >>> differences({"halo": 64, "mpp": 0.25}, {"halo": 128, "mpp": 0.25})
    {'halo': ('64', '128')}
    """
    return {
        name: (str(then.get(name, "not set")), str(now.get(name, "not set")))
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    }


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` when it is complete and on the disk.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error


def sync_folder(path: Path) -> None:
    """Have the names in a folder reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_arrays(nuclei: NucleusTable) -> dict[str, NDArray[Any]]:
    """The table as named arrays without objects."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(nuclei, name) for name in FIELDS}
    arrays["mpp"] = np.array([nuclei.mpp])
    arrays["column_names"] = np.array(list(nuclei.columns), dtype=np.str_)
    arrays["columns"] = np.stack([*nuclei.columns.values()]) if nuclei.columns else np.zeros((0, 0), "f4")
    if nuclei.embedding is not None:
        arrays["embedding"] = nuclei.embedding
    if nuclei.cells is not None:
        arrays |= {"cell_vertices": nuclei.cells.vertices, "cell_offsets": nuclei.cells.offsets}
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> NucleusTable:
    """The table that `to_arrays` took apart.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    columns = arrays["columns"]
    return NucleusTable(
        mpp=float(arrays["mpp"][0]),
        **{name: arrays[name] for name in FIELDS},
        columns={str(name): columns[i] for i, name in enumerate(arrays["column_names"])},
        embedding=arrays.get("embedding"),
        cells=Rings(arrays["cell_vertices"], arrays["cell_offsets"]) if "cell_offsets" in arrays else None,
    )
