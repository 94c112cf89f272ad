"""Tasks through a Dask scheduler that somebody already runs, whose workers have wsiseg installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distributed import Client

from wsiseg.errors import ConfigError
from wsiseg.execute._dask import DaskPool, pool_of
from wsiseg.execute._options import options_of
from wsiseg.execute._tls import security

ONE_PROCESS = False

log = logging.getLogger(__name__)

TIMEOUT = 30
"""Seconds to wait for the scheduler and its first worker."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the scheduler is reached.

    address : str      such as tls://node7:8786 or tcp://127.0.0.1:8786
    certs : str        folder of certificates, for tls
    cores : int        processors of one worker
    resource : str     what workers must have to be given tiles, such as GPU; "" for any worker
    """

    address: str
    certs: str = ""
    cores: int = 1
    resource: str = ""


def check(options: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing.

    Raises
    ------
    ConfigError
        Naming the option.
    """
    _checked(options)


def default_workers(cores: int) -> int:
    """Two tasks in flight for each of two workers, where nobody says how many workers there are."""
    return 2


def threads(cores: int, workers: int, options: Mapping[str, Any]) -> int:
    """Threads that a task may use: those of its worker."""
    return _checked(options).cores


@contextmanager
def start(*, workers: int, threads_per_worker: int = 1, **options: Any) -> Iterator[DaskPool]:
    """Connect to the scheduler; its workers are left as they are.

    Raises
    ------
    ConfigError
        If it cannot be reached, or has no worker.
    """
    given = _checked(options)
    try:
        client = Client(  # type: ignore[no-untyped-call]
            given.address, security=security(given.certs) if given.certs else None, timeout=TIMEOUT
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(f"--address {given.address}: no scheduler answers there ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=TIMEOUT)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise ConfigError(
                f"--address {given.address}: the scheduler has no workers; start some"
            ) from error
        yield pool_of(client, workers, resource=given.resource)


def _checked(options: Mapping[str, Any]) -> Options:
    given = options_of(Options, options, "dask_address")
    kind, host = urlsplit(given.address).scheme, urlsplit(given.address).hostname or ""
    if kind not in ("tcp", "tls"):
        raise ConfigError(f"--address {given.address}: give tls://host:port, or tcp://127.0.0.1:port")
    if kind == "tls" and not given.certs:
        raise ConfigError(f"--address {given.address}: needs certificates; give their folder as --certs")
    if kind == "tcp" and not (host == "localhost" or host.startswith("127.")):
        log.warning(
            "%s: anyone on the network can have its workers run code; tls:// keeps them out", given.address
        )
    return given
