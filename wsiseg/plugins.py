"""Plug-ins are modules in a package: adding a file adds a reader, an exporter, a recipe or an executor.

A module whose name starts with an underscore is the package's own and no plug-in.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from wsiseg.errors import ConfigError


def names(package: ModuleType) -> tuple[str, ...]:
    """Names of the plug-ins in `package`, in alphabetical order; none of them is imported."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def load(package: ModuleType, name: str) -> ModuleType:
    """The plug-in `name` of `package`.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    known = names(package)
    if name not in known:
        kind = package.__name__.rpartition(".")[2]
        raise ConfigError(f"{kind} has no {name!r}; choose one of {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")
