"""Signals wait where an exception of theirs would leave a lock taken.

The handler of Ctrl-C raises wherever the main thread happens to be, also between taking a lock and the block that
lets go of it. A thread that needs the lock then waits for ever, and the program for the thread. The locks of
`concurrent.futures` can be lost so (bugs.python.org/issue29988): what shares futures with threads holds signals.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""By which a person or a batch system ends a program."""


@contextmanager
def held() -> Iterator[Sequence[int]]:
    """Signals that end a program wait until this is left; gives those that came so far.

    What would last long within looks at them now and then and leaves. Their handlers are called afterwards, also
    where the block raised. In other threads than the main one nothing has to be done: no signal interrupts them.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    handlers = {number: handler for number in STOPPING if callable(handler := signal.getsignal(number))}
    try:
        with ExitStack() as back:
            for number, handler in handlers.items():
                back.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: came.append(number))
            yield came
    finally:
        for number in came:
            handlers[number](number, None)
