"""From a field to a sparse grid: coarse nodes first, then only those near the surface.

The field is positive inside. N nodes, Q query points.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrashape_cli.devices import free_bytes, upload
from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.inference.node_sets import NodeSet, near_surface

logger = logging.getLogger(__name__)

MIN_RESOLUTION = 63
CHUNK_SIZE = 8000
SMALLEST_CHUNK = 256
LARGEST_CHUNK = 1 << 18  # larger calls are not faster
BAND = 0.95  # |field| below this counts as near: it saturates at 1, one truncation away

# Key selection of the reference, see `models.vae.Field.query_group`.
_COARSE_BLOCKS = 4  # blocks an axis on the coarsest grid, and every 100th query
_COARSE_STRIDE = 100
_FINE_BUCKETS = 6  # buckets an axis of the bounding box on finer grids, and every 50th query
_FINE_STRIDE = 50

QueryFn = Callable[[Tensor], Tensor]  # points [Q, 3] -> field [Q]
Progress = Callable[[int, int, int], None]  # level, nodes done, nodes of the level


class GroupedField(Protocol):
    """A field that can answer a group of near points with a part of its keys."""

    def __call__(self, points: Tensor) -> Tensor:
        """Return the field at points."""
        ...

    def query_group(self, points: Tensor, stride: int, chunk_size: int) -> Tensor:
        """Return the field at points, with keys chosen by every stride-th of them."""
        ...


def coarsest_cells(truncation: float) -> int:
    """Return the fewest cells an axis that still show all of a field near its surface.

    A cell is at most two truncations wide: a sheet halfway between nodes, however thin, then lies
    within the band of both. Never more than the reference takes, whose cells are wider.

    Args:
        truncation: Half-width of that band, in half-sides of the cube.
    """
    return min(math.ceil(1 / truncation), MIN_RESOLUTION)


def level_cells(resolution: int, min_resolution: int = MIN_RESOLUTION) -> list[int]:
    """Return the cells an axis of each level, coarse to fine; the last is `resolution`."""
    cells = [resolution]
    while cells[-1] % 2 == 0 and cells[-1] // 2 >= min_resolution:
        cells.append(cells[-1] // 2)
    return cells[::-1]


def expected_queries(resolution: int, truncation: float) -> int:
    """Return how often a field is asked for a mesh, counted on a ball of radius 0.8.

    Args:
        resolution: Cells an axis.
        truncation: As in `coarsest_cells`.
    """
    asked = 0

    def ball(points: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(points)
        return 0.8 - points.norm(dim=-1)

    decode_field(ball, resolution, cells=level_cells(resolution, coarsest_cells(truncation)))
    return asked


def reference_level_cells(resolution: int, min_resolution: int = MIN_RESOLUTION) -> list[int]:
    """Return the levels of the reference's top-k decoding: 1024 -> 63, 126, 252, 504, 1008."""
    coarsest, count = resolution, 1
    while coarsest // 2 >= min_resolution:
        coarsest, count = coarsest // 2, count + 1
    start = round(coarsest / 4) * 4 - 1
    return [start * 2**i for i in range(count)]


def decode_field(
    query_fn: QueryFn | GroupedField,
    resolution: int,
    *,
    box: float = 1.0,
    level: float = 0.0,
    chunk_size: int | None = CHUNK_SIZE,
    max_memory_gib: float | None = None,
    min_resolution: int = MIN_RESOLUTION,
    keys: Literal["all", "topk"] = "all",
    cells: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> BrickGrid:
    """Evaluate a field near its surface, on finer and finer grids.

    Node i of the result lies at -box + i * 2 * box / num_cells on each axis.

    Args:
        query_fn: The field; for "topk" one with `query_group`.
        resolution: Cells an axis of the finest grid (the reference's levels end below it).
        box: Half the side of the decoded cube.
        level: Iso level of the surface.
        chunk_size: Most points per call; None takes what memory allows.
        max_memory_gib: Bound of the memory of one call; see `fitting_chunk`.
        min_resolution: The coarsest grid has at least this many cells.
        keys: "all" attends to every latent; "topk" is the reference's approximation, on its
            levels.
        cells: The cells of every level, each twice the one before, instead of the default.
        device: Where the points are created.
        progress: Called after each chunk.

    Raises:
        MeshError: The field has no surface in the box, or is not finite.
    """
    if cells is None:
        choose = reference_level_cells if keys == "topk" else level_cells
        cells = choose(resolution, min_resolution)
    if chunk_size is None or max_memory_gib is not None:
        fitting = fitting_chunk(query_fn, max_memory_gib, device)
        chunk_size = min(fitting, chunk_size or fitting)
    chosen = NodeSet.full(cells[0])
    for number, num_cells in enumerate(cells):
        groups = _groups(chosen, number == 0) if keys == "topk" else None
        ask = _Query(query_fn, num_cells, box, chunk_size, torch.device(device))
        grid = ask.evaluate(chosen, groups, number, progress)
        logger.debug("level of %d cells: %d nodes evaluated", num_cells, len(chosen))
        if number + 1 < len(cells):
            marked = near_surface(grid, level, BAND)
            if not len(marked):
                raise _no_surface(grid, level)
            chosen = _refine(marked, num_cells, cells[number + 1], number + 2 == len(cells))
    if not np.nanmin(grid.values) < level <= np.nanmax(grid.values):
        raise _no_surface(grid, level)
    return grid


def place_vertices(
    vertices: NDArray[np.floating],  # [V, 3] in node-index units
    num_cells: int,
    *,
    box: float = 1.0,
    reference_resolution: int | None = None,
) -> NDArray[np.float64]:
    """Return vertices of `extract_isosurface` in the cube [-box, box]^3.

    Args:
        vertices: In units of grid nodes.
        num_cells: Of the grid they come from.
        box: Half the side of the cube.
        reference_resolution: Place them as the reference does for this requested resolution,
            too small and off centre by 1.7 % at 1024. Only to compare outputs with it.
    """
    cells = num_cells if reference_resolution is None else reference_resolution + 1
    return np.asarray(vertices, np.float64) * (2 * box / cells) - box


def fitting_chunk(
    query_fn: object,
    max_memory_gib: float | None = None,
    device: str | torch.device = "cpu",
) -> int:
    """Return how many points one call may have.

    Args:
        query_fn: A field with `bytes_per_query`, the memory its layers need for one point; of
            another one nothing is known and the default size is returned.
        max_memory_gib: Memory for one call; None takes half of what is free on the device.
        device: Where the field is evaluated.
    """
    per_query = getattr(query_fn, "bytes_per_query", None)
    if per_query is None:
        return CHUNK_SIZE
    if max_memory_gib is None:
        max_memory_gib = free_bytes(torch.device(device)) / 2 / 2**30
    budget = max_memory_gib * 2**30
    return int(min(max(budget / per_query, SMALLEST_CHUNK), LARGEST_CHUNK))


def _no_surface(grid: BrickGrid, level: float) -> MeshError:
    sign = "inside" if np.nanmax(grid.values) > level else "outside"
    return MeshError(
        f"the decoded field has no surface: all nodes up to {grid.num_cells} cells are {sign}",
        hint="check the image, the weights and the coarse mesh",
    )


def _refine(marked: NDArray[np.int32], num_cells: int, next_cells: int, is_last: bool) -> NodeSet:
    """Return the nodes of the next level to evaluate."""
    if next_cells != 2 * num_cells:
        raise ValueError(f"each level must double the one before: {num_cells}, {next_cells}")
    if is_last:
        return NodeSet.from_nodes(next_cells, 2 * marked).dilate().dilate()
    grown = NodeSet.from_nodes(num_cells, marked).dilate().dilate()
    return NodeSet.from_nodes(next_cells, 2 * grown.nodes()).dilate()


class _Query:
    """Evaluates the field at grid nodes, chunk by chunk."""

    def __init__(
        self,
        query_fn: QueryFn | GroupedField,
        num_cells: int,
        box: float,
        chunk_size: int,
        device: torch.device,
    ) -> None:
        self.query_fn = query_fn
        self.num_cells = num_cells
        self.box = box
        self.chunk_size = chunk_size
        self.device = device

    @torch.no_grad()
    def evaluate(
        self,
        chosen: NodeSet,
        groups: Iterator[tuple[NDArray[np.int32], int]] | None,
        level: int,
        progress: Progress | None,
    ) -> BrickGrid:
        """Return the grid that knows the field at the chosen nodes."""
        total, done = len(chosen), 0
        nodes, values = [], []
        for part, stride in groups if groups is not None else self._chunks(chosen):
            points = upload(torch.from_numpy(self._points(part)), self.device)
            if groups is not None:
                nodes.append(part)
            values.append(self._ask(points, stride).float())
            done += len(part)
            if progress is not None:
                progress(level, done, total)
        # One transfer at the end: neither waits for the other in between.
        field = torch.cat(values).cpu().numpy()
        if not np.isfinite(field).all():
            raise MeshError("the decoded field is not finite", hint="--set refine.dtype=fp32")
        if groups is None:
            return chosen.grid(field)
        return BrickGrid.from_nodes(self.num_cells, np.concatenate(nodes), field)

    def _ask(self, points: Tensor, stride: int) -> Tensor:
        if stride:
            return self.query_fn.query_group(points, stride, self.chunk_size)  # type: ignore[union-attr]
        return self.query_fn(points)

    def _chunks(self, chosen: NodeSet) -> Iterator[tuple[NDArray[np.int32], int]]:
        for nodes in chosen.batches():
            for start in range(0, len(nodes), self.chunk_size):
                yield nodes[start : start + self.chunk_size], 0

    def _points(self, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
        return (nodes * (2 * self.box / self.num_cells) - self.box).astype(np.float32)


def _groups(
    chosen: NodeSet, coarsest: bool
) -> Iterator[tuple[NDArray[np.int32], int]]:  # nodes [N, 3], stride
    """Yield the groups of nodes that share their keys in the reference's top-k decoding."""
    nodes = chosen.nodes()
    nodes = nodes[np.lexsort(nodes.T[::-1])]  # C order of the grid
    if coarsest:
        side = -(-(chosen.num_cells + 1) // _COARSE_BLOCKS)
        bucket, count, stride = nodes // side, _COARSE_BLOCKS, _COARSE_STRIDE
    else:
        # In fp32, as the reference: rounding decides the bucket of nodes on a border.
        points = nodes.astype(np.float32)
        low, high = points.min(axis=0), points.max(axis=0)
        scale = np.float32(_FINE_BUCKETS - 0.001)
        bucket = np.floor((points - low) / np.maximum(high - low, 1) * scale).astype(np.int64)
        count, stride = _FINE_BUCKETS, _FINE_STRIDE
    number = (bucket[:, 0] * count + bucket[:, 1]) * count + bucket[:, 2]
    order = np.argsort(number, kind="stable")
    borders = np.flatnonzero(np.diff(number[order])) + 1
    for part in np.split(order, borders):
        yield nodes[part], stride
