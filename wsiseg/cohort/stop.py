"""Signals by which a batch system ends a process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(BaseException):
    """The batch system wants this process gone; like `KeyboardInterrupt`, no `except Exception` holds it up."""


@dataclass(slots=True)
class Stop:
    """Signals that end a run: during a slide at once, elsewhere as soon as nothing can be left half done.

    asked : int or None      the signal that came
    """

    asked: int | None = None
    _breakable: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        first, self.asked = self.asked is None, self.asked or number
        if first and self._breakable:
            raise Stopped

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Let a signal raise `Stopped` within."""
        self._breakable = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._breakable = False

    def listen(self) -> None:
        """Handle SIGTERM, SIGUSR1 and, unless it is ignored (nohup), SIGHUP from now on."""
        signal.signal(signal.SIGTERM, self)
        signal.signal(signal.SIGUSR1, self)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self)
