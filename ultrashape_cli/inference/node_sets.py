"""Sets of grid nodes near a surface, in bricks of 8 x 8 x 8, with dilation.

A grid of R cells has R + 1 nodes an axis. B bricks, N nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BRICK_NODES, BRICK_SIDE, BrickGrid, bricks_per_axis

_HALO = BRICK_SIDE + 2
_BATCH = 16384  # bricks dilated at once: 16 MiB of padded flags
# Where a neighbour's nodes go in a padded brick, and which they are, by offset -1, 0, 1.
_INTO = (slice(0, 1), slice(1, -1), slice(-1, None))
_FROM = (slice(-1, None), slice(None), slice(0, 1))


@dataclass(slots=True)
class NodeSet:
    """Some nodes of a grid.

    Attributes:
        num_cells: Cells an axis.
        coords: `[B, 3]` brick coordinates.
        index: `[n, n, n]` brick number or -1.
        flags: `[B, 8, 8, 8]` whether a node is in the set.
    """

    num_cells: int
    coords: NDArray[np.int32]
    index: NDArray[np.int32]
    flags: NDArray[np.bool_]

    @classmethod
    def from_nodes(cls, num_cells: int, nodes: NDArray[np.integer]) -> "NodeSet":  # [N, 3]
        """Return the set of these nodes."""
        used = np.zeros((bricks_per_axis(num_cells),) * 3, bool)
        used[tuple((nodes >> 3).T)] = True
        result = cls._empty(num_cells, used)
        low = nodes & 7
        result.flags[result.index[tuple((nodes >> 3).T)], low[:, 0], low[:, 1], low[:, 2]] = True
        return result

    @classmethod
    def full(cls, num_cells: int) -> "NodeSet":
        """Return the set of all nodes."""
        result = cls._empty(num_cells, np.ones((bricks_per_axis(num_cells),) * 3, bool))
        result.flags[:] = True
        result._cut_outside()
        return result

    @classmethod
    def _empty(cls, num_cells: int, used: NDArray[np.bool_]) -> "NodeSet":
        coords = np.argwhere(used).astype(np.int32)
        index = np.full(used.shape, -1, np.int32)
        index[tuple(coords.T)] = np.arange(len(coords), dtype=np.int32)
        flags = np.zeros((len(coords), BRICK_SIDE, BRICK_SIDE, BRICK_SIDE), bool)
        return cls(num_cells=num_cells, coords=coords, index=index, flags=flags)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.flags))

    def nodes(self, bricks: slice = slice(None)) -> NDArray[np.int32]:  # [N, 3]
        """Return the nodes of some bricks, brick by brick, in C order inside."""
        brick, x, y, z = np.nonzero(self.flags[bricks])
        low = np.stack([x, y, z], axis=1, dtype=np.int32, casting="same_kind")
        return self.coords[bricks][brick] * BRICK_SIDE + low

    def batches(self) -> Iterator[NDArray[np.int32]]:
        """Yield all nodes in the order of `nodes`, a few million at most at once."""
        for start in range(0, len(self.coords), _BATCH // 4):
            yield self.nodes(slice(start, start + _BATCH // 4))

    def grid(self, values: NDArray[np.float32]) -> BrickGrid:  # [N]
        """Return the grid that knows the nodes' values, given in the order of `nodes`."""
        grid = BrickGrid.allocate(self.num_cells, self.coords)
        grid.values[self.flags.reshape(-1, BRICK_NODES)] = values
        return grid

    def dilate(self) -> "NodeSet":
        """Return the set grown by one node in every direction, diagonals included."""
        used = np.zeros(np.add(self.index.shape, 2), bool)
        for offset in np.ndindex(3, 3, 3):
            near = self.flags[
                tuple([slice(None)] + [_FROM[2 - o] if o != 1 else _FROM[1] for o in offset])
            ]
            touched = near.any(axis=(1, 2, 3))
            used[tuple((self.coords[touched] + offset).T)] = True
        result = NodeSet._empty(self.num_cells, used[1:-1, 1:-1, 1:-1])
        for start in range(0, len(result.coords), _BATCH):
            part = slice(start, start + _BATCH)
            grown = padded(self.flags, self.index, result.coords[part], False)
            for axis in (1, 2, 3):
                low, mid, high = (np.moveaxis(grown, axis, 0)[i : i + BRICK_SIDE] for i in range(3))
                grown = np.moveaxis(low | mid | high, 0, axis)
            result.flags[part] = grown
        result._cut_outside()
        return result

    def _cut_outside(self) -> None:
        """Drop flags beyond the last node."""
        kept = self.num_cells % BRICK_SIDE + 1
        for axis in range(3):
            last = self.coords[:, axis] == self.index.shape[axis] - 1
            view = np.moveaxis(self.flags, axis + 1, 1)
            view[last, kept:] = False


def padded(
    values: NDArray,  # [B, 8, 8, 8]
    index: NDArray[np.int32],  # [n, n, n]
    coords: NDArray[np.int32],  # [K, 3] bricks asked for, present or not
    fill: float | bool,
) -> NDArray:  # [K, 10, 10, 10]
    """Return bricks with one layer of their neighbours' nodes; `fill` where there are none."""
    around = np.pad(index, 1, constant_values=-1)
    result = np.full((len(coords), _HALO, _HALO, _HALO), fill, values.dtype)
    for offset in np.ndindex(3, 3, 3):
        brick = around[tuple((coords + offset).T)]
        rows = np.flatnonzero(brick >= 0)
        into = tuple(_INTO[o] for o in offset)
        result[(rows, *into)] = values[(brick[rows], *(_FROM[o] for o in offset))]
    return result


def near_surface(grid: BrickGrid, level: float, band: float) -> NDArray[np.int32]:  # [N, 3]
    """Return known nodes within `band` of the level or with a 6-neighbour on its other side.

    Unknown neighbours and those outside the grid do not count.
    """
    values = grid.values.reshape(-1, BRICK_SIDE, BRICK_SIDE, BRICK_SIDE) - np.float32(level)
    marked = np.zeros((len(values), BRICK_NODES), bool)
    for start in range(0, len(values), _BATCH):
        part = slice(start, start + _BATCH)
        around = np.sign(padded(values, grid.index, grid.coords[part], np.nan))
        centre = around[:, 1:-1, 1:-1, 1:-1]
        found = np.abs(values[part]) < band
        for axis in (1, 2, 3):
            for begin in (0, 2):
                cut: list[slice] = [slice(None)] + [slice(1, -1)] * 3
                cut[axis] = slice(begin, begin + BRICK_SIDE)
                neighbour = around[tuple(cut)]
                found |= (neighbour != centre) & ~np.isnan(neighbour) & ~np.isnan(centre)
        marked[part] = found.reshape(-1, BRICK_NODES)
    return grid.nodes(marked)
