"""Loops over pixels and points, compiled by Numba where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

try:
    import numba
except ImportError:  # machines that only train on image folders may lack it
    numba = None  # type: ignore[assignment]

AVAILABLE = numba is not None
"""Whether loops are fast here; without Numba they run as Python, right and slow."""

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """`function` as machine code, made at its first call and kept on disk; it runs beside other threads.

    Sums may be taken in another order than written (one order for all calls of one machine), as vector
    instructions need.
    """
    if not AVAILABLE:
        return function
    faster = {"reassoc", "contract", "nsz"}
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", fastmath=faster)
    except RuntimeError:  # no folder to keep it in, as in a container that cannot be written to
        return numba.njit(function, nogil=True, error_model="numpy", fastmath=faster)
