"""What an exporter says of itself, and whether what it needs is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from wsiseg.errors import OutputError


@dataclass(frozen=True, slots=True)
class About:
    """A format, for people.

    what : str        in a few words
    opened_by : str   programs and libraries that read it
    extra : str       of this package, that its writing needs; "" for none
    module : str      that the extra brings; "" for none
    """

    what: str
    opened_by: str
    extra: str = ""
    module: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can be written here."""
        return not self.module or find_spec(self.module) is not None


def require(path: Path, about: About) -> None:
    """Refuse a format that cannot be written here.

    Raises
    ------
    OutputError
        Naming the extra to install.
    """
    if not about.installed:
        raise OutputError(
            f"{path}: {about.what} needs {about.module}, which is not installed; "
            f"pip install 'wsiseg[{about.extra}]'"
        )
