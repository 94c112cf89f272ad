"""What every command says when it fails, and how loudly it speaks."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from wsiseg.errors import WsisegError

P = ParamSpec("P")

FAILED = 2
"""Exit status where something that was given cannot be used."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells have it."""


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with its errors as one line on stderr and an exit status instead of a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except WsisegError as error:
            say(f"error: {error}")
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from error

    return run


def say(text: str) -> None:
    """One line on stderr."""
    print(" ".join(text.splitlines()), file=sys.stderr, flush=True)


def speak(*, quiet: bool, verbose: bool) -> None:
    """Let the package's log reach stderr: warnings, or everything with `verbose`, or errors with `quiet`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lower("%(levelname)s: %(message)s"))
    log = logging.getLogger("wsiseg")
    log.handlers = [handler]
    log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)


class Lower(logging.Formatter):
    """Names levels as errors are named: `warning: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        level, _, rest = super().format(record).partition(":")
        return f"{level.lower()}:{rest}"
