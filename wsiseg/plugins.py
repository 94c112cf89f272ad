"""Plug-ins are modules in a package: adding a file adds a reader, an exporter, a recipe or an executor.

A module whose name starts with an underscore is the package's own and no plug-in. Another distribution adds one by an
entry point in the group of the package's name, such as `wsiseg.recipes`: NAME = "its.module".
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from wsiseg.errors import ConfigError


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of the plug-ins in `package` and of those that are installed for it; none of them is imported."""
    return tuple(sorted({*_own(*package.__path__), *_installed(package.__name__)}))


def load(package: ModuleType, name: str) -> ModuleType:
    """The plug-in `name` of `package`; one of its own goes before one from elsewhere.

    Raises
    ------
    ConfigError
        If there is none of that name, or one from elsewhere cannot be imported.
    """
    if name in _own(*package.__path__):
        return importlib.import_module(f"{package.__name__}.{name}")
    kind, entry = package.__name__.rpartition(".")[2], _installed(package.__name__).get(name)
    if entry is None:
        raise ConfigError(f"{kind} has no {name!r}; choose one of {', '.join(names(package))}")
    try:
        module: ModuleType = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind}: {name!r} is {entry.value}, which cannot be imported ({error})") from error
    return module


@lru_cache  # a cohort opens thousands of slides, and each asks for all readers
def _own(*folders: str) -> frozenset[str]:
    return frozenset(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_"))


@lru_cache
def _installed(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}
