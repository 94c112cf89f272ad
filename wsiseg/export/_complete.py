"""Files that appear under their name when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from wsiseg.errors import OutputError


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when all went well, and else is removed.

    Raises
    ------
    OutputError
        If it cannot be written: the disk is full, say.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(temporary)


def _sync(path: Path) -> None:
    """Have a file, or every file of a folder, reach the disk before its name does."""
    for file in (p for p in (path.rglob("*") if path.is_dir() else (path,)) if p.is_file()):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Delete what a process that was killed had begun to write of `path`; nobody else may be writing it."""
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        _remove(leftover)


def _remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
