"""Sparse grid of nodes stored in bricks of 8 x 8 x 8, for fields known near a surface only.

A grid of R cells has R + 1 nodes an axis; node (i, j, k) has indices in [0, R]. Brick (a, b, c)
holds the nodes 8a .. 8a + 7 of its axes in C order. B bricks, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BRICK_SIDE = 8
BRICK_NODES = BRICK_SIDE**3


@dataclass(slots=True)
class BrickGrid:
    """Values at the nodes of some bricks of a regular grid; NaN where a value is not known.

    Attributes:
        num_cells: Cells an axis, R.
        coords: `[B, 3]` int32 brick coordinates.
        index: `[n, n, n]` int32 brick number or -1, n = ceil((R + 1) / 8).
        values: `[B, 512]` float32, C order inside a brick.
    """

    num_cells: int
    coords: NDArray[np.int32]
    index: NDArray[np.int32]
    values: NDArray[np.float32]

    @classmethod
    def allocate(
        cls,
        num_cells: int,
        brick_coords: NDArray[np.integer],  # [B, 3], no repeats
        fill: float = np.nan,
    ) -> BrickGrid:
        """Return a grid that has these bricks, every node set to `fill`."""
        side = bricks_per_axis(num_cells)
        coords = np.ascontiguousarray(brick_coords, dtype=np.int32).reshape(-1, 3)
        if len(coords) and (coords.min() < 0 or coords.max() >= side):
            raise ValueError(f"brick coordinates must lie in [0, {side}) for {num_cells} cells")
        index = np.full((side, side, side), -1, np.int32)
        index[tuple(coords.T)] = np.arange(len(coords), dtype=np.int32)
        values = np.full((len(coords), BRICK_NODES), fill, np.float32)
        return cls(num_cells=num_cells, coords=coords, index=index, values=values)

    @classmethod
    def from_nodes(
        cls,
        num_cells: int,
        nodes: NDArray[np.integer],  # [N, 3] node indices in [0, num_cells]
        values: NDArray[np.floating],  # [N]
    ) -> BrickGrid:
        """Return a grid that knows exactly these nodes."""
        nodes = np.asarray(nodes).reshape(-1, 3)
        if len(nodes) and (nodes.min() < 0 or nodes.max() > num_cells):
            raise ValueError(f"node indices must lie in [0, {num_cells}]")
        used = np.zeros((bricks_per_axis(num_cells),) * 3, bool)
        used[tuple((nodes >> 3).T)] = True
        grid = cls.allocate(num_cells, np.argwhere(used))
        grid.set(nodes, values)
        return grid

    def nodes(self, mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the indices `[N, 3]` of the nodes chosen by a mask `[B, 512]`, in its order."""
        brick, offset = np.nonzero(mask)
        inside = np.stack([offset >> 6, (offset >> 3) & 7, offset & 7], axis=1)
        return self.coords[brick] * BRICK_SIDE + inside.astype(np.int32)

    def locate(
        self,
        nodes: NDArray[np.integer],  # [N, 3]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return brick number `[N]` (-1 where there is none) and offset `[N]` of each node."""
        nodes = np.asarray(nodes, np.int64)
        side = self.index.shape[0]
        brick_coords = nodes >> 3
        present = ((brick_coords >= 0) & (brick_coords < side)).all(axis=1)
        brick = np.full(len(nodes), -1, np.int64)
        brick[present] = self.index[tuple(brick_coords[present].T)]
        low = nodes & 7
        return brick, (low[:, 0] << 6) | (low[:, 1] << 3) | low[:, 2]

    def get(self, nodes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the values `[N]` at nodes `[N, 3]`; NaN where no brick holds the node."""
        brick, offset = self.locate(nodes)
        found = np.full(len(brick), np.nan, np.float32)
        present = brick >= 0
        found[present] = self.values[brick[present], offset[present]]
        return found

    def set(self, nodes: NDArray[np.integer], values: NDArray[np.floating]) -> None:
        """Set the values `[N]` at nodes `[N, 3]`, whose bricks must exist."""
        brick, offset = self.locate(nodes)
        if (brick < 0).any():
            raise ValueError("a node lies in a brick that is not allocated")
        self.values[brick, offset] = values


def all_nodes(num_cells: int) -> NDArray[np.int64]:  # [N, 3]
    """Return the indices of all nodes of a grid, in C order."""
    index = np.arange(num_cells + 1)
    return np.stack(np.meshgrid(index, index, index, indexing="ij"), axis=-1).reshape(-1, 3)


def bricks_per_axis(num_cells: int) -> int:
    """Return how many bricks hold the `num_cells + 1` nodes of an axis."""
    return -(-(num_cells + 1) // BRICK_SIDE)
