"""Which grid nodes are inside an arbitrary surface, without trusting the winding of its faces.

Two neighbouring nodes whose distances to the surface add up to more than a cell lie on the same
side: a segment that crosses the surface is at least as long as the sum. Nodes joined this way form
components. The one at the corner of the grid is outside; any other large one is enclosed and
counts as inside, cavities included. The few small ones hug the surface; each asks its neighbours
of known side, and rays tell whether the surface lies between.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BRICK_NODES, BrickGrid
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.rays import RayScene

# Components below this many nodes are decided by votes.
_SMALL = 200
# Rounds in which nodes learn their side from neighbours in free sight.
_MAX_PASSES = 4
_NEIGHBOURS = [d for d in itertools.product((-1, 0, 1), repeat=3) if any(d)]


def classify_nodes(
    distances: BrickGrid,
    scene: RayScene,
) -> tuple[NDArray[np.int8], int]:
    """Return the side of each node `[B, 512]`, 1 outside and -1 inside.

    Args:
        distances: Unsigned distances in cells; NaN beyond the band.
        scene: The same surface in node-index units.

    Returns:
        The sides, and how many nodes needed votes.
    """
    root, size = _components(distances.coords, distances.index, distances.values)
    num_nodes = distances.values.size
    outside = _corner_root(distances, root)
    side = np.where(size >= _SMALL, -1, 0).astype(np.int8)
    side[outside] = 1

    small = np.flatnonzero((side[root[:num_nodes]] == 0) & ~np.isnan(distances.values.ravel()))
    if len(small):
        _vote(distances, scene, root, side, small)
    # Whatever no ray could reach is dropped rather than turned into a blob.
    side[side == 0] = 1
    return side[root[:num_nodes]].reshape(-1, BRICK_NODES), len(small)


def _corner_root(grid: BrickGrid, root: NDArray[np.int64]) -> int:
    brick = int(grid.index[0, 0, 0])
    return int(root[brick * BRICK_NODES if brick >= 0 else grid.values.size])


def _vote(
    grid: BrickGrid,
    scene: RayScene,
    root: NDArray[np.int64],
    side: NDArray[np.int8],
    small: NDArray[np.int64],
) -> None:
    """Fill in the sides of small components, nearest to known nodes first.

    A free segment proves that both ends share a side. A blocked one only suggests that they do not,
    since a thin sheet is crossed without a change of side; it counts for the nodes that no free
    segment reaches, such as those between two close walls.
    """
    brick, offset = np.divmod(small, BRICK_NODES)
    inside = np.stack([offset >> 6, (offset >> 3) & 7, offset & 7], axis=1)
    nodes = grid.coords[brick].astype(np.int64) * 8 + inside
    component = root[small]
    for _ in range(_MAX_PASSES):
        free, blocked = _poll(grid, scene, root, side, nodes, component)
        decided = component[free[component] != 0]
        side[decided] = np.sign(free[decided]).astype(np.int8)
        if len(decided) == 0:
            break
        keep = side[component] == 0
        nodes, component = nodes[keep], component[keep]
        if len(nodes) == 0:
            return
    else:
        free, blocked = _poll(grid, scene, root, side, nodes, component)
    side[component] = np.sign(-blocked[component]).astype(np.int8)


def _poll(
    grid: BrickGrid,
    scene: RayScene,
    root: NDArray[np.int64],
    side: NDArray[np.int8],
    nodes: NDArray[np.int64],  # [N, 3]
    component: NDArray[np.int64],  # [N]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each component, the summed sides of neighbours in free and in blocked sight."""
    free = np.zeros(len(side))
    blocked = np.zeros(len(side))
    for direction in _NEIGHBOURS:
        known = side[root[_flat_index(grid, nodes + direction)]]
        ask = np.flatnonzero(known)
        along = np.broadcast_to(np.array(direction, np.float64), (len(ask), 3))
        reach = float(np.linalg.norm(direction))
        hit = scene.occluded(nodes[ask].astype(np.float64), along, reach)
        for votes, chosen in ((free, ask[~hit]), (blocked, ask[hit])):
            np.add.at(votes, component[chosen], known[chosen])
    return free, blocked


def _flat_index(grid: BrickGrid, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return positions in the component array: a node, or the missing brick that holds it."""
    brick, offset = grid.locate(nodes)
    side = grid.index.shape[0]
    coords = np.clip(nodes >> 3, 0, side - 1)
    missing = (coords[:, 0] * side + coords[:, 1]) * side + coords[:, 2]
    return np.where(brick >= 0, brick * BRICK_NODES + offset, grid.values.size + missing)


@kernel
def _find(parent, a):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@kernel
def _join(parent, a, b):
    a, b = _find(parent, a), _find(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@kernel
def _components(coords, index, distances):
    """Return the component of every node, then of every missing brick, and component sizes.

    A missing brick is far from the surface, hence a single element.
    """
    side = index.shape[0]
    num_nodes = len(coords) * 512
    parent = np.arange(num_nodes + side**3)
    for i in range(side):
        for j in range(side):
            for k in range(side):
                if index[i, j, k] >= 0:
                    continue
                here = num_nodes + (i * side + j) * side + k
                if i + 1 < side and index[i + 1, j, k] < 0:
                    _join(parent, here, here + side * side)
                if j + 1 < side and index[i, j + 1, k] < 0:
                    _join(parent, here, here + side)
                if k + 1 < side and index[i, j, k + 1] < 0:
                    _join(parent, here, here + 1)
    for brick in range(len(coords)):
        for offset in range(512):
            here = brick * 512 + offset
            d = distances[brick, offset]
            for axis in range(3):
                shift = 6 - 3 * axis
                place = (offset >> shift) & 7
                for step in (-1, 1):
                    if 0 <= place + step < 8:
                        if step < 0:
                            continue
                        other = offset + (1 << shift)
                        # NaN, a node beyond the band, fails the comparison and is joined.
                        if not d + distances[brick, other] <= 1.0:
                            _join(parent, here, brick * 512 + other)
                        continue
                    a = coords[brick, 0] + (step if axis == 0 else 0)
                    b = coords[brick, 1] + (step if axis == 1 else 0)
                    c = coords[brick, 2] + (step if axis == 2 else 0)
                    if min(a, b, c) < 0 or max(a, b, c) >= side:
                        continue
                    next_brick = index[a, b, c]
                    if next_brick < 0:
                        _join(parent, here, num_nodes + (a * side + b) * side + c)
                    elif step > 0:
                        other = offset & ~(7 << shift)
                        if not d + distances[next_brick, other] <= 1.0:
                            _join(parent, here, next_brick * 512 + other)
    size = np.zeros(len(parent), np.int64)
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        size[parent[i]] += 1 if i < num_nodes else 512
    return parent, size
