"""Sums of maps over the pixels of each label, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsiseg import compiled

HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""The value of every float16 by its bits: compiled loops know no float16."""


def label_sums(
    values: NDArray[np.floating] | NDArray[np.uint8], labels: NDArray[np.integer], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(count, K) sums of (K, H, W) values over labels 1..count of (H, W), and (count,) pixels of each.

    >>> label_sums(np.array([[[1.0, 2.0, 4.0]]]), np.array([[0, 1, 1]]), 1)
    (array([[6.]]), array([2]))
    """
    if not compiled.AVAILABLE:
        maps, flat = values.reshape(len(values), -1), labels.reshape(-1)
        index = np.flatnonzero(flat)
        numbers = flat[index]
        rows = [np.bincount(numbers, row[index].astype(np.float64), count + 1)[1:] for row in maps]
        return np.stack(rows, axis=1), np.bincount(numbers, minlength=count + 1)[1:]
    if values.dtype == np.float16:
        return _half_sums(values.view(np.uint16), HALVES, labels, count)
    return _sums(values, labels, count)


@compiled.compiled
def end_of_run(row: NDArray[np.integer], start: int) -> int:
    """Where the equal labels (W,) that begin at `start` end: sums go over runs of pixels, whose values lie side by side."""
    stop = start + 1
    while stop < len(row) and row[stop] == row[start]:
        stop += 1
    return stop


@compiled.compiled
def _sums(
    values: NDArray[np.floating] | NDArray[np.uint8], labels: NDArray[np.integer], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums, sizes = np.zeros((count, len(values))), np.zeros(count, np.int64)
    for y in range(len(labels)):
        stop = 0
        while stop < labels.shape[1]:
            start, stop = stop, end_of_run(labels[y], stop)
            label = labels[y, start] - 1
            if label < 0:
                continue
            sizes[label] += stop - start
            for k in range(len(values)):
                row, total = values[k, y], 0.0
                for x in range(start, stop):
                    total += row[x]
                sums[label, k] += total
    return sums, sizes


@compiled.compiled
def _half_sums(
    bits: NDArray[np.uint16], value: NDArray[np.float32], labels: NDArray[np.integer], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums, sizes = np.zeros((count, len(bits))), np.zeros(count, np.int64)
    for y in range(len(labels)):
        stop = 0
        while stop < labels.shape[1]:
            start, stop = stop, end_of_run(labels[y], stop)
            label = labels[y, start] - 1
            if label < 0:
                continue
            sizes[label] += stop - start
            for k in range(len(bits)):
                row, total = bits[k, y], 0.0
                for x in range(start, stop):
                    total += value[row[x]]
                sums[label, k] += total
    return sums, sizes
