"""Which exporter writes a file, and whether it could."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from wsiseg import plugins
from wsiseg.errors import OutputError
from wsiseg.export._about import About, require


def _exporters() -> dict[str, str]:
    """Suffix -> plug-in, for all of them."""
    from wsiseg import export

    return {s: name for name in plugins.names(export) for s in plugins.load(export, name).SUFFIXES}


def suffixes() -> tuple[str, ...]:
    """Suffixes that can be written, in alphabetical order."""
    return tuple(sorted(_exporters()))


def formats() -> tuple[tuple[tuple[str, ...], About], ...]:
    """(suffixes, what they are) of every exporter, by the first suffix."""
    from wsiseg import export

    modules = [plugins.load(export, name) for name in plugins.names(export)]
    return tuple(sorted(((m.SUFFIXES, m.ABOUT) for m in modules), key=lambda each: each[0]))


def exporter_for(path: Path) -> ModuleType:
    """The exporter of the longest suffix that `path` ends in.

    Raises
    ------
    OutputError
        If there is none (those that exist are named), or if what it needs is not installed.
    """
    from wsiseg import export

    known = _exporters()
    fitting = [suffix for suffix in known if path.name.lower().endswith(suffix)]
    if not fitting:
        fault = (
            f"nothing writes {path.suffix!r}" if path.suffix else "has no suffix, which says what to write"
        )
        raise OutputError(f"{path}: {fault}; use one of {', '.join(sorted(known))}")
    chosen = plugins.load(export, known[max(fitting, key=len)])
    require(path, chosen.ABOUT)
    return chosen


def check_outputs(paths: Sequence[Path], *, overwrite: bool = False) -> None:
    """Refuse, before any work is done, what could not be written at the end.

    Raises
    ------
    OutputError
        If a suffix is unknown or needs what is not installed, a folder is missing or cannot be written, or
        something is there already.
    """
    for path in paths:
        exporter_for(path)
        if not path.parent.is_dir():
            raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: the folder {path.parent} cannot be written")
        if path.is_dir() and not path.name.lower().endswith(".zarr"):
            raise OutputError(f"{path}: is a folder; choose another name")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists; give --overwrite to replace it, or choose another name")
    if len({path.resolve() for path in paths}) < len(paths):
        raise OutputError("the same output is given twice; give each once")
