"""Flat-kernel mean-shift point by point, for the processor.

Points lie in cells of the plane that their first two numbers span, as wide as the kernel: a seed meets those of nine
cells, row by row, and the work per seed does not grow with the tile.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsiseg.compiled import compiled

Rows = NDArray[np.float32]

STEPS = 75
"""Shifts of a seed at most: nearly always it rests before the fifteenth."""


def mean_shift(
    pixels: Rows, points: Rows, weights: NDArray[np.float32], seeds: Rows, *, bandwidth: float, alike: float
) -> NDArray[np.int64]:
    """Index of the mode nearest to each pixel.

    Parameters
    ----------
    pixels : (N, D)           embeddings
    points, weights : (P, D), (P,)
        Means of cells of pixels and their numbers, among which the first search goes.
    seeds : (S, D)            where it begins
    alike
        Seeds within this share of the bandwidth, after the first shift and after the first search, go on as one.
    """
    # After one shift most seeds of a nucleus are in one place: of twenty, one goes on.
    begun = separate(*shift(points, weights, seeds, bandwidth, 1, False), alike * bandwidth)
    ended = separate(*shift(points, weights, begun, bandwidth, STEPS, False), alike * bandwidth)
    every = np.ones(len(pixels), np.float32)
    modes = separate(*shift(pixels, every, ended, bandwidth, STEPS, True), bandwidth)
    return nearest(pixels, modes, bandwidth / 2)


@compiled
def embed(
    bits: NDArray[np.uint16],
    value: NDArray[np.float32],
    index: NDArray[np.int64],
    start: tuple[int, int],
    scale: float,
) -> Rows:
    """(N, D) anchored embeddings of pixels, given by their flat indices, of offsets (D, H, W) told by their bits."""
    rows = np.empty((len(index), len(bits)), np.float32)
    unit, width = np.float32(scale), bits.shape[2]
    for n in range(len(index)):
        y, x = index[n] // width, index[n] % width
        for d in range(len(bits)):
            rows[n, d] = value[bits[d, y, x]]
        rows[n, 0] += np.float32(y + start[0]) * unit
        rows[n, 1] += np.float32(x + start[1]) * unit
    return rows


@compiled
def cell_means(
    pixels: Rows, index: NDArray[np.int64], width: int, start: tuple[int, int], cell: tuple[int, int]
) -> tuple[Rows, NDArray[np.float32]]:
    """(P, D) mean of the pixels of each cell of the plan, and (P,) their number, in reading order of the cells."""
    columns = (width + start[1]) // cell[1] + 1
    across = (np.arange(width) + start[1]) // cell[1]
    key, row, end = np.empty(len(index), np.int64), 0, 0
    for n in range(len(index)):
        if index[n] >= end:  # the first pixel of a row
            row = index[n] // width
            end = (row + 1) * width
        key[n] = (row + start[0]) // cell[0] * columns + across[index[n] - row * width]
    place = np.full(key[-1] // columns * columns + columns, -1, np.int64)
    for n in range(len(index)):
        place[key[n]] = 0
    count = 0
    for c in range(len(place)):
        if place[c] == 0:
            place[c] = count
            count += 1
    means, sizes = np.zeros((count, pixels.shape[1]), np.float32), np.zeros(count, np.float32)
    for n in range(len(index)):
        p = place[key[n]]
        sizes[p] += 1
        for d in range(pixels.shape[1]):
            means[p, d] += pixels[n, d]
    for p in range(count):
        for d in range(pixels.shape[1]):
            means[p, d] /= sizes[p]
    return means, sizes


def separate(ends: Rows, mass: NDArray[np.float32], bandwidth: float) -> Rows:
    """(M, D) modes, heaviest first, none within the bandwidth of an earlier one."""
    sorted_ends = ends[_heaviest_first(ends, mass)]
    return sorted_ends[_first_of_each(sorted_ends, bandwidth)]


def _heaviest_first(ends: Rows, mass: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices by mass (whole numbers), equal ones by place; one number for the three sorts in a third of the time."""
    if not len(ends):
        return np.zeros(0, np.int64)
    # Rounded, so that two seeds that ended in one place are one mode whatever the last bits are.
    y, x = np.rint(ends[:, :2].T * 100).astype(np.int64)
    y, x = y - y.min(), x - x.min()
    lighter = int(mass.max()) - mass.astype(np.int64)
    return np.argsort((lighter * (int(y.max()) + 1) + y) * (int(x.max()) + 1) + x, kind="stable")


@compiled
def _cells(points: Rows, side: float) -> tuple[int, int, int, int, NDArray[np.int64], NDArray[np.int64]]:
    """First row and column of the cells, their rows and columns, where each begins, and the points cell by cell."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(len(points)):
        for axis in range(2):
            low[axis] = min(low[axis], points[i, axis])
            high[axis] = max(high[axis], points[i, axis])
    row0, column0 = math.floor(low[0] / side), math.floor(low[1] / side)
    rows, columns = math.floor(high[0] / side) - row0 + 1, math.floor(high[1] / side) - column0 + 1
    begin = np.zeros(rows * columns + 1, np.int64)
    cell = np.empty(len(points), np.int64)
    for i in range(len(points)):
        row, column = math.floor(points[i, 0] / side) - row0, math.floor(points[i, 1] / side) - column0
        cell[i] = row * columns + column
        begin[cell[i] + 1] += 1
    for c in range(rows * columns):
        begin[c + 1] += begin[c]
    free, order = begin[:-1].copy(), np.empty(len(points), np.int64)
    for i in range(len(points)):
        order[free[cell[i]]] = i
        free[cell[i]] += 1
    return row0, column0, rows, columns, begin, order


@compiled
def shift(
    points: Rows, weights: NDArray[np.float32], seeds: Rows, bandwidth: float, steps: int, many: bool
) -> tuple[Rows, NDArray[np.float32]]:
    """Where the seeds (S, D) are among the points (P, D) after some steps, (S, D), or where they came to rest before.

    And the weight under the kernel before the last step, (S,). `many` says that a cell has dozens of points, and so
    which form of the same sums is fast.
    """
    row0, column0, rows, columns, begin, order = _cells(points, bandwidth)
    # Cell by cell in memory, so that a row of cells is read from end to end.
    near, weight = np.empty_like(points), np.empty_like(weights)
    for i in range(len(points)):
        near[i], weight[i] = points[order[i]], weights[order[i]]
    planes = np.empty(0, np.float32)
    if many:
        planes = _planes(near, begin, rows, columns)
    kernel = np.empty(len(points) if many else 0, np.float32)
    ends, mass = seeds.copy(), np.zeros(len(seeds), np.float32)
    dims = points.shape[1]
    here, way = np.empty(dims, np.float32), np.empty(dims, np.float32)
    within, rest = np.float32(bandwidth**2), np.float32((1e-3 * bandwidth) ** 2)
    turns = np.arange(len(seeds))
    if many:
        turns = _cells(seeds, bandwidth)[5]  # neighbours meet the same points, which are then at hand
    for s in turns:
        for d in range(dims):
            here[d] = seeds[s, d]
        for _ in range(steps):
            y, x = here[0], here[1]
            row, column = math.floor(y / bandwidth) - row0, math.floor(x / bandwidth) - column0
            left, right = max(column - 1, 0), min(column + 1, columns - 1)
            total = np.float32(0)
            for d in range(dims):
                way[d] = 0
            for r in range(max(row - 1, 0), min(row + 1, rows - 1) + 1):
                first, last = begin[r * columns + left], begin[r * columns + right + 1]
                if many:
                    start, end = begin[r * columns], begin[(r + 1) * columns]
                    of = planes[start * dims : end * dims].reshape((dims, end - start))
                    total += _pull(
                        of, weight[start:end], first - start, last - start, here, within, way, kernel
                    )
                    continue
                for i in range(first, last):
                    square = (near[i, 0] - y) ** 2 + (near[i, 1] - x) ** 2
                    # Half of all points are too far in the plane already.
                    if square <= within:
                        for d in range(2, dims):
                            square += (near[i, d] - here[d]) ** 2
                        if square <= within:
                            total += weight[i]
                            for d in range(dims):
                                way[d] += weight[i] * (near[i, d] - here[d])
            if total == 0:
                break
            mass[s] = total
            moved = np.float32(0)
            for d in range(dims):
                step = way[d] / total
                moved += step**2
                here[d] += step
            if moved <= rest:
                break
        ends[s] = here
    return ends, mass


@compiled
def _planes(near: Rows, begin: NDArray[np.int64], rows: int, columns: int) -> NDArray[np.float32]:
    """(P * D,) row of cells by row of cells, the first number of all its points, then the second ..."""
    dims = near.shape[1]
    planes = np.empty(near.size, np.float32)
    for r in range(rows):
        start, end = begin[r * columns], begin[(r + 1) * columns]
        planes[start * dims : end * dims].reshape((dims, end - start))[:] = near[start:end].T
    return planes


@compiled
def _pull(
    planes: NDArray[np.float32],
    weight: NDArray[np.float32],
    first: int,
    last: int,
    here: NDArray[np.float32],
    within: np.float32,
    way: NDArray[np.float32],
    kernel: NDArray[np.float32],
) -> np.float32:
    """Weight of the points from `first` up to `last` of `planes` (D, P) that are under the kernel, which lies `here`.

    Their weighted ways from there are added to `way`; loops run over points, many at a time. `kernel` is room for
    their weights.
    """
    count = last - first
    for i in range(count):
        kernel[i] = 0
    for d in range(len(here)):
        at, plane = here[d], planes[d, first:last]
        for i in range(count):
            kernel[i] += (plane[i] - at) ** 2
    total, heavy = np.float32(0), weight[first:last]
    for i in range(count):
        kernel[i] = heavy[i] if kernel[i] <= within else np.float32(0)
        total += kernel[i]
    for d in range(len(here)):
        at, plane, pull = here[d], planes[d, first:last], np.float32(0)
        for i in range(count):
            pull += kernel[i] * (plane[i] - at)
        way[d] += pull
    return total


@compiled
def _first_of_each(modes: Rows, bandwidth: float) -> NDArray[np.bool_]:
    """(M,) which of the modes have no earlier one, itself kept, within the bandwidth."""
    side = 3 * bandwidth  # of cells: there are often too many of them otherwise
    row0, column0, rows, columns, begin, order = _cells(modes, side)
    keep = np.ones(len(modes), np.bool_)
    for m in range(len(modes)):
        if not keep[m]:
            continue
        row, column = (
            math.floor(modes[m, 0] / side) - row0,
            math.floor(modes[m, 1] / side) - column0,
        )
        left, right = max(column - 1, 0), min(column + 1, columns - 1)
        for r in range(max(row - 1, 0), min(row + 1, rows - 1) + 1):
            for i in order[begin[r * columns + left] : begin[r * columns + right + 1]]:
                if i > m and keep[i]:
                    square = np.float32(0)
                    for d in range(modes.shape[1]):
                        square += (modes[i, d] - modes[m, d]) ** 2
                    keep[i] = square > bandwidth**2
    return keep


@compiled
def nearest(pixels: Rows, modes: Rows, side: float) -> NDArray[np.int64]:
    """Index of the mode (M, D) nearest to each pixel (N, D); of equal ones, the first.

    No two modes are within twice `side` of each other: one within `side` of a pixel is the nearest. It is mostly that of
    the pixel before; else rings of cells of `side` about the pixel are searched until none can hold a nearer one.
    """
    row0, column0, rows, columns, begin, order = _cells(modes, side)
    found = np.empty(len(pixels), np.int64)
    dims = pixels.shape[1]
    sure, which = np.float32((0.99 * side) ** 2), -1  # a little less: sums are rounded
    for p in range(len(pixels)):
        if which >= 0:
            square = np.float32(0)
            for d in range(dims):
                square += (modes[which, d] - pixels[p, d]) ** 2
            if square < sure:
                found[p] = which
                continue
        y, x = pixels[p, 0], pixels[p, 1]
        row, column = math.floor(y / side) - row0, math.floor(x / side) - column0
        last = max(row, rows - 1 - row, column, columns - 1 - column)
        best, which, ring = np.float32(np.inf), -1, 0
        while ring <= last and (ring <= 1 or ((ring - 1) * side) ** 2 <= best) and best >= sure:
            for r in range(max(row - ring, 0), min(row + ring, rows - 1) + 1):
                across = 1 if abs(r - row) == ring else 2 * ring
                for c in range(column - ring, column + ring + 1, across):
                    if 0 <= c < columns:
                        for i in range(begin[r * columns + c], begin[r * columns + c + 1]):
                            m = order[i]
                            square = (modes[m, 0] - y) ** 2 + (modes[m, 1] - x) ** 2
                            if square <= best:
                                for d in range(2, dims):
                                    square += (modes[m, d] - pixels[p, d]) ** 2
                                if square < best or (square == best and m < which):
                                    best, which = square, m
            ring += 1
        found[p] = which
    return found
