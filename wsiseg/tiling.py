"""How a slide is cut: cores that partition the plan, halos around them, fixed runs of tiles as tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from wsiseg.errors import ConfigError
from wsiseg.geometry import Rect

STRIDE = 64
"""Cores and steps are multiples of this: it holds the networks' stride (32) and the cluster grid."""


REACH = 64
"""Pixels beyond a core in which nuclei are looked for, if the halo is that wide: more than half of the largest nucleus
whose centre may lie in the core. What lies further out helps the networks to see, and need not be clustered."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of the plan: `core` is answered for, `outer` (core + halo) is looked at."""

    index: int
    core: Rect
    outer: Rect

    @property
    def seen(self) -> Rect:
        """Where nuclei are looked for: the core and no more than `REACH` around it."""
        return self.core.grow(min(REACH, self.core.y0 - self.outer.y0))


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Which tiles are computed, and which of them together.

    mpp : float                      microns per plan pixel
    shape : (H, W)                   of the plan, in plan pixels
    core, halo : int                 side of a core and width of the halo, plan pixels
    grid : (rows, columns)           of the cores; `Tile.index` is row * columns + column
    tasks : runs of tiles            fixed by the plan, never by what is finished or free

    Cores start at (0, 0) and all have one size; the last row and column may reach past the plan.
    """

    mpp: float
    shape: tuple[int, int]
    core: int
    halo: int
    grid: tuple[int, int]
    tasks: tuple[tuple[Tile, ...], ...]

    @property
    def reach(self) -> int:
        """Pixels beyond its core that a tile's nuclei may reach."""
        return min(REACH, self.halo)

    @property
    def tiles(self) -> Iterator[Tile]:
        """Every tile, in the order of the plan."""
        return (tile for task in self.tasks for tile in task)

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return sum(len(task) for task in self.tasks)


def check_tile_size(core: int) -> None:
    """Refuse a core that is no positive multiple of the stride.

    Raises
    ------
    ConfigError
        Naming the two nearest sizes that are allowed.
    """
    if core < STRIDE or core % STRIDE:
        below = max(STRIDE, core // STRIDE * STRIDE)
        raise ConfigError(
            f"tile size {core} is not a positive multiple of {STRIDE}; "
            f"the nearest are {below} and {below + STRIDE}"
        )


def make_plan(
    shape: tuple[int, int],
    *,
    mpp: float,
    core: int = 1536,
    halo: int = 192,
    run: int = 2,
    keep: Callable[[Rect], bool] | None = None,
) -> TilePlan:
    """Cut a plan of `shape` (H, W) into tiles.

    Parameters
    ----------
    core, halo
        Plan pixels; multiples of 64, so that overlapping tiles sample one grid.
    run
        Tiles in a task, at most: the last tasks have fewer.
    keep
        Whether a core (clipped to the plan) is to be computed at all; all are, where it is None.

    Raises
    ------
    ConfigError
        If `core` or `halo` is no multiple of 64.

    Examples
    --------
    >>> plan = make_plan((100, 200), mpp=0.25, core=128, halo=64)
    >>> plan.grid, plan.n_tiles, plan.tasks[1][0].outer
    ((1, 2), 2, Rect(y0=-64, x0=64, y1=192, x1=320))
    """
    check_tile_size(core)
    if halo < 0 or halo % STRIDE:
        raise ConfigError(f"halo {halo} is not a multiple of {STRIDE}; 192 is right for most models")
    rows, columns = -(-shape[0] // core), -(-shape[1] // core)
    whole = Rect(0, 0, *shape)
    tiles = []
    for row in range(rows):
        for column in range(columns):
            rect = Rect(row * core, column * core, (row + 1) * core, (column + 1) * core)
            if keep is None or keep(rect.intersect(whole)):
                tiles.append(Tile(row * columns + column, rect, rect.grow(halo)))
    return TilePlan(mpp, shape, core, halo, (rows, columns), tuple(runs(tiles, run)))


def runs(tiles: Sequence[Tile], run: int) -> Iterator[tuple[Tile, ...]]:
    """`tiles` in runs of so many, and towards the end of fewer and fewer: no worker waits long for the last one.

    >>> [len(task) for task in runs([Tile(i, Rect(0, 0, 1, 1), Rect(0, 0, 1, 1)) for i in range(21)], 4)]
    [4, 4, 4, 3, 2, 2, 1, 1]
    """
    begun = 0
    while begun < len(tiles):
        size = min(run, 1 + (len(tiles) - begun) // 4)
        yield tuple(tiles[begun : begun + size])
        begun += size
