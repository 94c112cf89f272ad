"""A folder beside an output, for what its format cannot take in the order in which it comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsiseg.errors import OutputError


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty folder on the disk of `path`, which is deleted when it is left.

    Its name is one that `remove_leftovers` knows, should this process be killed.

    Raises
    ------
    OutputError
        If it, or what is put into it, cannot be written: the disk is full, say.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.parts.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
