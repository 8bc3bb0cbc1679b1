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
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene

# Components below this many nodes are decided by votes.
_SMALL = 200
# Rounds in which nodes learn their side from neighbours in free sight.
_MAX_PASSES = 4
# One free segment decides, so the closest neighbours are asked first, the others where those fail.
_AROUND = np.array([d for d in itertools.product((-1, 0, 1), repeat=3) if any(d)])
_CLOSEST = _AROUND[np.abs(_AROUND).sum(axis=1) == 1]
_DIAGONAL = _AROUND[np.abs(_AROUND).sum(axis=1) > 1]
# Nodes of an enclosed component that are tested when cavities are kept.
_CAVITY_PROBES = 9


def classify_nodes(
    distances: BrickGrid,
    scene: RayScene,
    hollow: Mesh | None = None,
) -> tuple[NDArray[np.int8], int]:
    """Return the side of each node `[B, 512]`, 1 outside and -1 inside.

    Args:
        distances: Unsigned distances in cells; NaN beyond the band of one cell or more.
        scene: The same surface in node-index units.
        hollow: The same surface again, where enclosed cavities are to stay empty.

    Returns:
        The sides, and how many nodes needed votes.
    """
    label, missing, size = _components(distances.coords, distances.index, distances.values)
    side = np.where(size >= _SMALL, -1, 0).astype(np.int8)
    if hollow is not None:
        _open_cavities(distances, label, side, hollow)
    brick = int(distances.index[0, 0, 0])
    side[label[brick, 0] if brick >= 0 else missing[0, 0, 0]] = 1

    nodes, component = _undecided(distances.coords, label, side)
    num_voted = len(nodes)
    if num_voted:
        _vote(distances.index, scene, label, missing, side, nodes, component)
    # Whatever no ray could reach is dropped rather than turned into a blob.
    side[side == 0] = 1
    return side[label], num_voted


def _open_cavities(
    grid: BrickGrid,
    label: NDArray[np.int32],  # [B, 512]
    side: NDArray[np.int8],  # [L]
    surface: Mesh,
) -> None:
    """Turn the enclosed components outside whose nodes the surface does not wind around."""
    enclosed = np.flatnonzero(side == -1)
    flat = label.ravel()
    order = np.argsort(flat, kind="stable")
    first = np.searchsorted(flat[order], enclosed)
    last = np.searchsorted(flat[order], enclosed, side="right")
    field = DistanceField(surface)
    for component, start, stop in zip(enclosed, first, last, strict=True):
        if start == stop:
            continue
        chosen = order[np.linspace(start, stop - 1, _CAVITY_PROBES).astype(np.int64)]
        brick, offset = np.divmod(chosen, BRICK_NODES)
        inside = np.stack([offset >> 6, (offset >> 3) & 7, offset & 7], axis=1)
        nodes = grid.coords[brick] * 8.0 + inside
        if field.contains(nodes).mean() < 0.5:
            side[component] = 1


def _vote(
    index: NDArray[np.int32],
    scene: RayScene,
    label: NDArray[np.int32],
    missing: NDArray[np.int32],
    side: NDArray[np.int8],
    nodes: NDArray[np.int64],
    component: NDArray[np.int64],
) -> None:
    """Fill in the sides of small components, nearest to known nodes first.

    A free segment proves that both ends share a side. A blocked one only suggests that they do not,
    since a thin sheet is crossed without a change of side; it counts for the nodes that no free
    segment reaches. Those are inside where one wall parts them from the outside, as between two
    shells, and outside where all walls around them are of solids, as between two fingers.
    """

    def poll(directions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        known = _known_sides(nodes, directions, index, label, missing, side)
        who, which = np.nonzero(known)
        along = directions[which].astype(np.float64)
        reach = np.sqrt(np.square(along).sum(axis=1))
        hit = scene.occluded(nodes[who].astype(np.float64), along, reach)
        return _tally(component[who], known[who, which], hit, len(side))

    for _ in range(_MAX_PASSES):
        num_before = len(nodes)
        for directions in (_CLOSEST, _DIAGONAL):
            free, _ = poll(directions)
            decided = component[free[component] != 0]
            side[decided] = np.sign(free[decided])
            keep = side[component] == 0
            nodes, component = nodes[keep], component[keep]
            if len(nodes) == 0:
                return
        if len(nodes) == num_before:
            break
    _, from_outside = poll(_AROUND)
    side[component] = np.where(from_outside[component] > 0, -1, 1)


@kernel
def _undecided(coords, label, side):
    """Return the nodes `[N, 3]` of components without a side, and their components `[N]`."""
    count = 0
    for brick in range(len(coords)):
        for offset in range(512):
            count += side[label[brick, offset]] == 0
    nodes = np.empty((count, 3), np.int64)
    component = np.empty(count, np.int64)
    count = 0
    for brick in range(len(coords)):
        for offset in range(512):
            if side[label[brick, offset]] == 0:
                nodes[count, 0] = coords[brick, 0] * 8 + (offset >> 6)
                nodes[count, 1] = coords[brick, 1] * 8 + ((offset >> 3) & 7)
                nodes[count, 2] = coords[brick, 2] * 8 + (offset & 7)
                component[count] = label[brick, offset]
                count += 1
    return nodes, component


@kernel
def _known_sides(nodes, directions, index, label, missing, side):
    """Return the side `[N, D]` of the neighbour in each direction, 0 where it has none yet."""
    known = np.zeros((len(nodes), len(directions)), np.int8)
    limit = index.shape[0] * 8
    for n in range(len(nodes)):
        for d in range(len(directions)):
            i = min(max(nodes[n, 0] + directions[d, 0], 0), limit - 1)
            j = min(max(nodes[n, 1] + directions[d, 1], 0), limit - 1)
            k = min(max(nodes[n, 2] + directions[d, 2], 0), limit - 1)
            brick = index[i >> 3, j >> 3, k >> 3]
            if brick >= 0:
                known[n, d] = side[label[brick, ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)]]
            else:
                known[n, d] = side[missing[i >> 3, j >> 3, k >> 3]]
    return known


@kernel
def _tally(component, known, hit, num_components):
    """Return, for each component, the summed sides of neighbours in free sight.

    Then how many neighbours in blocked sight are outside.
    """
    free = np.zeros(num_components, np.int64)
    from_outside = np.zeros(num_components, np.int64)
    for i in range(len(component)):
        if hit[i]:
            from_outside[component[i]] += known[i] > 0
        else:
            free[component[i]] += known[i]
    return free, from_outside


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
def _label_bricks(distances, label):
    """Number the components inside each brick alone, `label [B, 512]`; return how many."""
    parent = np.empty(512, np.int32)
    total = 0
    for brick in range(len(distances)):
        row = distances[brick]
        close = False
        for offset in range(512):
            close |= row[offset] <= 0.5
        if not close:
            label[brick, :] = total
            total += 1
            continue
        for offset in range(512):
            parent[offset] = offset
        for offset in range(512):
            d = row[offset]
            # NaN, a node beyond the band, fails the comparison and is joined.
            if offset & 7 != 7 and not d + row[offset + 1] <= 1.0:
                _join(parent, offset, offset + 1)
            if offset & 56 != 56 and not d + row[offset + 8] <= 1.0:
                _join(parent, offset, offset + 8)
            if offset < 448 and not d + row[offset + 64] <= 1.0:
                _join(parent, offset, offset + 64)
        for offset in range(512):
            # The root of a component is its first node, so it has its number already.
            root = _find(parent, offset)
            if root == offset:
                label[brick, offset] = total
                total += 1
            else:
                label[brick, offset] = label[brick, root]
    return total


@kernel
def _join_missing(index, parent, first):
    """Join neighbouring missing bricks; brick i, j, k is element `first + (i n + j) n + k`."""
    side = index.shape[0]
    for i in range(side):
        for j in range(side):
            for k in range(side):
                if index[i, j, k] >= 0:
                    continue
                here = first + (i * side + j) * side + k
                if i + 1 < side and index[i + 1, j, k] < 0:
                    _join(parent, here, here + side * side)
                if j + 1 < side and index[i, j + 1, k] < 0:
                    _join(parent, here, here + side)
                if k + 1 < side and index[i, j, k + 1] < 0:
                    _join(parent, here, here + 1)


@kernel
def _join_across(coords, index, distances, label, parent, first):
    """Join the components of each brick with those beyond its six faces."""
    side = index.shape[0]
    for brick in range(len(coords)):
        for face in range(6):
            axis, step = face >> 1, 2 * (face & 1) - 1
            a = coords[brick, 0] + (step if axis == 0 else 0)
            b = coords[brick, 1] + (step if axis == 1 else 0)
            c = coords[brick, 2] + (step if axis == 2 else 0)
            if min(a, b, c) < 0 or max(a, b, c) >= side:
                continue
            other = index[a, b, c]
            if other >= 0 and step < 0:
                continue
            shift = 6 - 3 * axis
            last_here, last_there = -1, -1
            for n in range(64):
                low = n & ((1 << shift) - 1)
                offset = ((n >> shift) << (shift + 3)) | low
                here = offset | (7 << shift) if step > 0 else offset
                mine = label[brick, here]
                theirs = first + (a * side + b) * side + c
                if other >= 0:
                    theirs = label[other, offset]
                if mine == last_here and theirs == last_there:
                    continue
                if other >= 0 and distances[brick, here] + distances[other, offset] <= 1.0:
                    continue
                _join(parent, mine, theirs)
                last_here, last_there = mine, theirs


@kernel
def _components(coords, index, distances):
    """Return the component of each node `[B, 512]` and missing brick `[n, n, n]`, and the sizes.

    A missing brick is far from the surface, hence a single element that counts as 512 nodes.
    """
    side = index.shape[0]
    label = np.empty(distances.shape, np.int32)
    first = _label_bricks(distances, label)
    parent = np.arange(first + side**3).astype(np.int32)
    _join_missing(index, parent, first)
    _join_across(coords, index, distances, label, parent, first)
    size = np.zeros(len(parent), np.int64)
    for brick in range(len(coords)):
        for offset in range(512):
            root = _find(parent, label[brick, offset])
            label[brick, offset] = root
            size[root] += 1
    missing = np.empty((side, side, side), np.int32)
    flat = missing.ravel()
    for i in range(side**3):
        flat[i] = _find(parent, first + i)
        size[flat[i]] += 512
    return label, missing, size
