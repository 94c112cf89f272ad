"""Files a command is to write: refused before any work is done, and made again from a store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from wsiseg import export
from wsiseg.errors import OutputError
from wsiseg.export import complete
from wsiseg.export.zarr import read_store


def check_outputs(paths: Sequence[Path], *, source: Path, overwrite: bool = False) -> None:
    """Refuse outputs that could not be written, or whose writing would destroy what is being read.

    Raises
    ------
    OutputError
        Naming the output and what to do.
    """
    for path in paths:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path}: is what is being read; choose another name")
    export.check_outputs(paths, overwrite=overwrite)
    for path in paths:
        check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse a path in whose folder no file can be made.

    Raises
    ------
    OutputError
        Telling why.
    """
    try:
        # To ask for permissions is not enough: a file system may be read-only, and root may do anything.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"{path}: the folder {path.parent} cannot be written ({reason}); choose another"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file, in a folder that is made if need be; it appears complete.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    with complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def convert(store: Path, path: Path) -> int:
    """Write the nuclei of a store to `path`, piece by piece; returns how many.

    Raises
    ------
    StoreError
        If the store is damaged.
    OutputError
        If `path` cannot be written, or no exporter has its suffix.
    """
    info, pieces = read_store(store)
    count: int = export.exporter_for(path).write(path, pieces, info)
    return count
