"""Options of a backend: the fields of a dataclass, from a TOML file or the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from wsiseg.errors import ConfigError

O = TypeVar("O")  # noqa: E741


def options_of(kind: type[O], given: Mapping[str, Any], backend: str) -> O:
    """The options of a backend, checked.

    Raises
    ------
    ConfigError
        If one is unknown or of another type, or one that must be given is missing.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"executor {backend}: option {name!r} is unknown; it takes {', '.join(known) or 'none'}"
            )
        wanted = str(known[name].type)
        inside = [type(part).__name__ for part in value] if isinstance(value, list) else []
        if type(value).__name__ != wanted.partition("[")[0] or any(
            f"[{kind}]" not in wanted for kind in inside
        ):
            raise ConfigError(f"executor {backend}: {name} = {value!r} is not of the type {wanted}")
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"executor {backend}: {name} must be given")
    return kind(**given)


def read_options(path: Path) -> dict[str, Any]:
    """Options from a TOML file.

    Raises
    ------
    ConfigError
        If it cannot be read as TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
