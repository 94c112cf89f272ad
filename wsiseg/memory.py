"""Memory that is given back by one tile is kept for the next.

Networks take and give back arrays of up to 100 MiB, tile after tile. The C library asks the system for each of them
anew, and the system clears every page first: measured on a slide, a quarter of all time went there, and as much of a
training step. Kept in one heap they are used again. In the long run holes between them add up, on a large slide to as
much as is in use; `give_back` bounds that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from itertools import count
from pathlib import Path

SETTINGS = {
    "MALLOC_MMAP_MAX_": (-4, 0),  # no array gets pages of its own
    "MALLOC_TRIM_THRESHOLD_": (-1, 1 << 30),  # the end of the heap is kept, up to a GiB
    "MALLOC_ARENA_MAX": (-8, 1),  # one heap: what one thread gave back another may use
}
"""Variables of the GNU C library's allocator -> its number for `mallopt`, and the value."""

ENVIRONMENT = {name: str(value) for name, (_, value) in SETTINGS.items()}
"""For processes that are yet to begin."""

EVERY = 16
"""Calls of `give_back` of which one gives back in any case: pages that are asked for anew cost time, holes memory."""

_calls = count(1)


def keep_memory() -> None:
    """Have this process keep what it gives back; what the environment says already stays as it is.

    It is for processes of our own: call it before threads begin. Other C libraries than GNU's are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    for name, (number, value) in SETTINGS.items():
        if name not in os.environ:
            library.mallopt(number, value)


def give_back(beyond: float) -> bool:
    """Return to the system what this process keeps unused; whether it did.

    It does where the process has more than `beyond` bytes, and every `EVERY`-th time. Elsewhere than on Linux with the
    GNU C library nothing is kept, and nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    library = ctypes.CDLL(None)
    little = pages * os.sysconf("SC_PAGE_SIZE") <= beyond
    if (little and next(_calls) % EVERY) or not hasattr(library, "malloc_trim"):
        return False
    return bool(library.malloc_trim(0))
