"""Zarr arrays that grow by rows."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

ROWS = 65_536
"""Rows of an array that are compressed together."""

FILE_BYTES = 1 << 24
"""Of a file of several such, before it is compressed: few files, and little is held to write one."""


class Growing:
    """An array that grows, compressed with a check sum; it is written a file at a time.

    A file holds `ROWS` rows, or, `sharded`, as many times that as `FILE_BYTES` have room for.
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        *,
        sharded: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.group, self.name, self.sharded, self.rows = group, name, sharded, ROWS
        self.attributes = dict(attributes or {})
        self.array: zarr.Array[Any] | None = None
        self.waiting: list[NDArray[Any]] = []

    def append(self, values: NDArray[Any]) -> None:
        """Add rows at the end."""
        if self.sharded and not self.waiting:
            row = max(1, values.dtype.itemsize * prod(values.shape[1:]))
            self.rows = max(1, FILE_BYTES // (row * ROWS)) * ROWS
        self.waiting.append(values)
        while sum(map(len, self.waiting)) >= self.rows:
            whole = np.concatenate(self.waiting)
            self._put(whole[: self.rows])
            self.waiting = [whole[self.rows :].copy()]  # a view would hold all that was written

    def finish(self) -> None:
        """Write what is left."""
        self._put(np.concatenate(self.waiting))

    def _put(self, values: NDArray[Any]) -> None:
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
