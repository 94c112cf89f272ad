"""What a process gives back it keeps, and uses again: counted in page faults, which do not depend on the clock."""

import os
import subprocess
import sys

import pytest

from wsiseg.memory import ENVIRONMENT

SCRIPT = """
import ctypes, resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from wsiseg.memory import keep_memory
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages come as they are free, and count as one
if sys.argv[1] == "kept":
    keep_memory()
def use():
    for _ in range(8):
        np.ones(6_000_000)
with ThreadPoolExecutor(1) as pool:
    pool.submit(use).result()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pool.submit(use).result()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **variables: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, how]
    done = subprocess.run(command, env={**clean, **variables}, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library's allocator is Linux's")
def test_large_arrays_are_used_again() -> None:
    left_alone = faults("left alone")
    assert faults("kept") < 0.1 * left_alone
    assert faults("left alone", **ENVIRONMENT) < 0.1 * left_alone
    # Somebody who set a variable meant it.
    assert faults("kept", MALLOC_MMAP_MAX_="65536") > 0.5 * left_alone


HOLES = """
import os
import numpy as np
from wsiseg.memory import EVERY, give_back, keep_memory
def mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
keep_memory()
arrays = [np.ones(n) for _ in range(20) for n in (1_000_000, 1000)]
kept = arrays[1::2]  # between two holes each, so that the heap cannot shrink
full = mib()
del arrays
before = mib()
left = give_back(beyond=1e12), mib()
given = give_back(beyond=1e8), mib()
times = 0
for _ in range(3 * EVERY):
    arrays = [np.ones(n) for _ in range(2) for n in (100_000, 1000)]
    kept += arrays[1::2]
    del arrays
    times += give_back(beyond=1e12)
print(full, before, *left, *given, times)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library's allocator is Linux's")
def test_holes_go_back_to_the_system_once_there_are_too_many() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", HOLES], env=clean, capture_output=True, text=True, check=True
    )
    full, before, left, still, given, after, times = done.stdout.split()
    assert (left, given) == ("False", "True")
    assert min(int(before), int(still)) > int(full) - 16
    assert int(after) < int(full) - 120
    assert int(times) == 3
