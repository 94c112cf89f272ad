"""Lists of names on the command line."""

from __future__ import annotations

from collections.abc import Sequence


def names(given: Sequence[str] | None, *, default: Sequence[str] = ("shape",)) -> tuple[str, ...]:
    """Names from an option that takes several with commas between them, and may be given several times.

    >>> names(["shape,stain", "context"]), names(None)
    (('shape', 'stain', 'context'), ('shape',))
    """
    found = [name.strip() for text in given or default for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in found if name)) or tuple(default)
