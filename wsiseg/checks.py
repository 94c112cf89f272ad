"""What a number must be to be used."""

from __future__ import annotations

from wsiseg.errors import ConfigError


def check_range(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a setting outside its range, or that is no number; None is the default.

    Raises
    ------
    ConfigError
        Telling the range.
    """
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{name} {value:g} is not between {least:g} and {most:g}")
