"""Zarr arrays that grow by rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

ROWS = 65_536
"""Rows of an array that are compressed together."""

FILE_BYTES = 1 << 24
"""Of a file of several such, before it is compressed: few files, and little is held to write one."""


class Growing:
    """An array that grows, compressed with a check sum; it is written a file at a time.

    A file holds `ROWS` rows, or, `sharded`, as many times that as `FILE_BYTES` have room for. Rows that do not fill one
    yet wait on the disk: those of a dozen arrays would be most of what a run holds. Numbers may be written `as_text`.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        *,
        sharded: bool = False,
        as_text: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.group, self.name, self.sharded, self.as_text, self.rows = group, name, sharded, as_text, ROWS
        self.attributes = dict(attributes or {})
        self.array: zarr.Array[Any] | None = None
        self.waiting: IO[bytes] | None = None
        self.count = 0
        """Rows that wait."""
        self.none: NDArray[Any] = np.zeros(0)
        """No rows, of the dtype and shape that all have."""

    def append(self, values: NDArray[Any]) -> None:
        """Add rows at the end."""
        if self.waiting is None:
            self.none = values[:0].copy()
            self.waiting = tempfile.TemporaryFile(dir=folder_of(self.group))  # noqa: SIM115  # `finish` closes it
            if self.sharded:
                self.rows = max(1, FILE_BYTES // (max(1, self._row()) * ROWS)) * ROWS
        self.waiting.write(values.tobytes())
        self.count += len(values)
        while self.count >= self.rows:
            self._put(self.waiting, self.rows)

    def finish(self) -> None:
        """Write what is left."""
        if self.waiting is not None:
            with self.waiting as file:
                self._put(file, self.count)

    def _row(self) -> int:
        """Bytes of a row."""
        return self.none.dtype.itemsize * prod(self.none.shape[1:])

    def _put(self, waiting: IO[bytes], count: int) -> None:
        """Write the first `count` rows that wait."""
        waiting.seek(0)
        rows = waiting.read(count * self._row())
        rest = waiting.read()
        waiting.seek(0)
        waiting.truncate()
        waiting.write(rest)
        self.count -= count
        values = np.frombuffer(rows, self.none.dtype).reshape(count, *self.none.shape[1:])
        if self.as_text:
            values = values.astype(np.dtypes.StringDType())
        if self.array is None:
            chunk = (min(ROWS, self.rows), *(max(1, n) for n in values.shape[1:]))
            self.array = self.group.create_array(
                self.name,
                shape=(0, *values.shape[1:]),
                dtype=values.dtype,
                chunks=chunk,
                shards=(self.rows, *chunk[1:]) if self.rows > ROWS else None,
                compressors=ZstdCodec(level=5, checksum=True),
                attributes=self.attributes,
            )
        start = self.array.shape[0]
        self.array.resize((start + len(values), *values.shape[1:]))
        if values.size:
            self.array[start:] = values


def folder_of(group: zarr.Group) -> Path:
    """The folder of a store on this machine's disk.

    Raises
    ------
    TypeError
        If it lies elsewhere.
    """
    if not isinstance(group.store, LocalStore):
        raise TypeError(f"{group.store} is no folder")
    return group.store.root
