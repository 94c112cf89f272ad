"""Output files: which exporter a name asks for, and whether it can be written at all, before any work is done."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from wsiseg import export, plugins
from wsiseg.errors import OutputError
from wsiseg.export.zarr import read_store


def exporter_for(path: Path) -> ModuleType:
    """The exporter whose suffix `path` ends in; the longest that fits is meant.

    Raises
    ------
    OutputError
        If none fits; every suffix is named.
    """
    modules = [plugins.load(export, name) for name in plugins.names(export)]
    known = {suffix: module for module in modules for suffix in module.SUFFIXES}
    fitting = [suffix for suffix in known if path.name.lower().endswith(suffix)]
    if not fitting:
        raise OutputError(f"{path}: no exporter for this suffix; choose one of {', '.join(sorted(known))}")
    return known[max(fitting, key=len)]


def check_outputs(paths: Sequence[Path], *, source: Path, overwrite: bool = False) -> None:
    """Refuse outputs that cannot be written, or that would destroy something.

    Parameters
    ----------
    source
        What is read; no output may be the same.

    Raises
    ------
    OutputError
        Naming the output and what to do.
    """
    for i, path in enumerate(paths):
        exporter_for(path)
        check_folder(path)
        if path in paths[:i]:
            raise OutputError(f"{path}: given twice; name every output once")
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path}: is what is being read; choose another name")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists; give --overwrite to replace it, or another name")


def check_folder(path: Path) -> None:
    """Refuse a path in whose folder no file can be made.

    Raises
    ------
    OutputError
        If the folder is missing, is none, or does not take a file.
    """
    folder = path.parent
    if not folder.is_dir():
        kind = "is no folder" if folder.exists() else "does not exist"
        raise OutputError(f"{path}: the folder {folder} {kind}; make it, or choose another")
    try:
        # Asking for permissions is not enough: file systems are read-only, and root may do anything.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: the folder {folder} cannot be written to ({reason}); choose another") from error


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
    count: int = exporter_for(path).write(path, pieces, info)
    return count
