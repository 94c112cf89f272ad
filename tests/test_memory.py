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
