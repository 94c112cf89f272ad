"""What a run will take, before it begins. Rough: within a factor of two on ordinary machines."""

from __future__ import annotations

from wsiseg.tiling import TilePlan

WORKERS = 2
"""Threads that hold a tile each, where nobody says otherwise."""

BASE = 600e6
"""Bytes of a process with torch and a model in it."""

BYTES_PER_PIXEL = 340
"""Bytes at the peak per pixel of a tile with its halo: activations of the networks, maps, the tile, and what the
process keeps for the next one. A worker that has more gives it back after the tile (`memory.give_back`)."""

CORE_SECONDS_PER_MEGAPIXEL = 1.0
"""Seconds of one processor core per million pixels of tiles with their halos: 0.9 to 1.1 on the colon slide."""


def workers_in(memory: float, *, tile_size: int, halo: int = 192, shared: bool) -> int:
    """Workers that fit into `memory` bytes, at most; `shared`, where all are threads of one process.

    >>> workers_in(4.5e9, tile_size=1536, shared=True), workers_in(1e9, tile_size=1536, shared=True)
    (3, 0)
    """
    tile = (tile_size + 2 * halo) ** 2 * BYTES_PER_PIXEL
    return int((memory - BASE) // tile if shared else memory // (BASE + tile))


def process_memory(plan: TilePlan, *, tiles: int) -> float:
    """Bytes of a process that has so many tiles in hand at once."""
    return BASE + tiles * (plan.core + 2 * plan.halo) ** 2 * BYTES_PER_PIXEL


def estimate(plan: TilePlan, *, cores: int, flips: int = 1) -> tuple[float, float]:
    """(bytes of memory, seconds) of a run on processors as `segment` begins it.

    >>> from wsiseg.tiling import make_plan
    >>> estimate(make_plan((0, 0), mpp=0.25), cores=1)[1]
    0.0
    """
    pixels = (plan.core + 2 * plan.halo) ** 2
    memory = process_memory(plan, tiles=min(WORKERS, cores))
    return memory, plan.n_tiles * pixels / 1e6 * CORE_SECONDS_PER_MEGAPIXEL * flips / cores
