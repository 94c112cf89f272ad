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


FASTER = {"reassoc", "contract", "nsz"}
"""What a compiler may do to sums: take them in another order, multiply and add at once, forget the sign of zero."""


def compiled(function: Function) -> Function:
    """`function` as machine code, made at its first call and kept on disk; it runs beside other threads.

    Sums may be taken in another order than written (one order for all calls of one machine), as vector
    instructions need.
    """
    return _machine_code(function, FASTER)


def compiled_exactly(function: Function) -> Function:
    """As `compiled`, but sums are taken as written, to the same bits on any machine and for any part of a picture."""
    return _machine_code(function, set())


def _machine_code(function: Function, fastmath: set[str]) -> Function:
    if not AVAILABLE:
        return function
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", fastmath=fastmath)
    except RuntimeError:  # no folder to keep it in, as in a container that cannot be written to
        return numba.njit(function, nogil=True, error_model="numpy", fastmath=fastmath)
