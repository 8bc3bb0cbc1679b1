"""Closes tunnels of a level set that are narrower than its cells, and cuts pillars as thin.

Where two layers of a surface come closer than a cell, nodes fall between them only here and there,
and each chain of such nodes is a handle that the input does not have. The nodes close to the
surface in such places are filled, then given back, farthest first, as long as that changes no
topology. What stays filled is one layer across each narrow tunnel, or a pillar where the walls of a
gap were joined on the way; the pillars go last. A tunnel stays open if any way through it keeps
farther from the surface than the limit.

Inside nodes are joined along grid edges and outside nodes along diagonals too, as marching cubes
does on the faces of its cells. Simple points follow Bertrand and Malandain, "A new characterization
of three-dimensional simple points", 1994.
"""

import itertools

import numpy as np

from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.watertight.sheets import mark_cells

# Cells. Measured on four damaged sculpts: 0.75 leaves as many handles and turns more nodes.
LIMIT = 0.5
# Steps from the limit down to the surface in which nodes are given back.
_LEVELS = 16

# The nodes around one form a set of bits; bit 9a + 3b + c is the node at a, b, c in [0, 2]^3.
_PLACES = np.array(list(itertools.product(range(3), repeat=3)))
_BITS = 1 << np.arange(27)
_STEPS = np.abs(_PLACES[:, None] - _PLACES[None])
_FROM_CENTRE = _STEPS[13].sum(axis=1)
# Neighbours of the centre that touch each place, and those an edge away, less the corners.
_TOUCHING = np.where((_STEPS.max(axis=2) == 1) & (_FROM_CENTRE > 0), _BITS, 0).sum(axis=1)
_EDGE_AWAY = np.where(
    (_STEPS.sum(axis=2) == 1) & (_FROM_CENTRE > 0) & (_FROM_CENTRE < 3), _BITS, 0
).sum(axis=1)
_ALL_26 = int(_BITS[_FROM_CENTRE > 0].sum())
_CLOSEST_6 = int(_BITS[_FROM_CENTRE == 1].sum())
_CLOSEST_18 = int(_BITS[(_FROM_CENTRE > 0) & (_FROM_CENTRE < 3)].sum())
# The 26 grid edges, squares and cubes at the centre: their other corners, and what each adds to an
# Euler number.
_LOW, _HIGH = np.minimum(_PLACES, 1)[:, None], np.maximum(_PLACES, 1)[:, None]
_IN_BOX = ((_LOW <= _PLACES) & (_PLACES <= _HIGH)).all(axis=2)
_BOXES = np.where(_IN_BOX & (_FROM_CENTRE > 0), _BITS, 0).sum(axis=1)
_BOX_SIGNS = 1 - 2 * (_FROM_CENTRE % 2)


def close_tunnels(grid: BrickGrid, limit: float = LIMIT) -> int:
    """Turn outside nodes inside, so that narrow tunnels close; return how many.

    Args:
        grid: Signed distances in cells, positive outside, known in every brick.
        limit: Largest distance of a node that may be turned.
    """
    inside = grid.values <= 0
    may_turn = np.zeros(inside.shape, bool)
    pinched = _pinched(grid.coords, grid.index, grid.values, inside, np.float32(limit))
    # Two cells reach across a tunnel that is two nodes wide.
    mark_cells(pinched, grid.index, may_turn)
    chosen = np.flatnonzero(may_turn & ~inside & (grid.values <= limit))
    level = (grid.values.ravel()[chosen] * (_LEVELS / limit)).astype(np.int8)
    inside.ravel()[chosen] = True
    filled = np.full(inside.shape, -1, np.int8)
    filled.ravel()[chosen] = np.minimum(level, _LEVELS - 1)
    for cut_pillars in (False, True):
        _give_back(grid.coords, grid.index, inside, filled, chosen, cut_pillars)
    stays = chosen[inside.ravel()[chosen]]
    grid.values.ravel()[stays] *= -1
    return len(stays)


@kernel
def _around(coords, index, inside, brick, offset):
    """Return which of the nodes around one are inside, as bits."""
    limit = index.shape[0] * 8
    x = coords[brick, 0] * 8 + (offset >> 6) - 1
    y = coords[brick, 1] * 8 + ((offset >> 3) & 7) - 1
    z = coords[brick, 2] * 8 + (offset & 7) - 1
    found = 0
    for place in range(27):
        a, b, c = x + place // 9, y + place // 3 % 3, z + place % 3
        if place != 13 and min(a, b, c) >= 0 and max(a, b, c) < limit:
            other = index[a >> 3, b >> 3, c >> 3]
            if other >= 0 and inside[other, ((a & 7) * 8 + (b & 7)) * 8 + (c & 7)]:
                found |= 1 << place
    return found


@kernel
def _pinched(coords, index, values, inside, limit):
    """Return the outside nodes `[N, 3]` within the limit that lie between two inside nodes."""
    found = np.empty((1024, 3), np.int64)
    count = 0
    for brick in range(len(coords)):
        for offset in range(512):
            if inside[brick, offset] or values[brick, offset] > limit:
                continue
            near = _around(coords, index, inside, brick, offset)
            between = False
            for place in range(13):
                between |= (near >> place) & (near >> (26 - place)) & 1 == 1
            if not between:
                continue
            if count == len(found):
                more = np.empty((2 * count, 3), np.int64)
                more[:count] = found
                found = more
            found[count, 0] = coords[brick, 0] * 8 + (offset >> 6)
            found[count, 1] = coords[brick, 1] * 8 + ((offset >> 3) & 7)
            found[count, 2] = coords[brick, 2] * 8 + (offset & 7)
            count += 1
    return found[:count]


@kernel
def _is_one_part(nodes, seeds, joined):
    """Return whether all seeds, at least one, hang together through the nodes; all sets of bits."""
    if seeds == 0:
        return False
    part = seeds & -seeds
    while True:
        grown = part
        for place in range(27):
            if part >> place & 1:
                grown |= joined[place] & nodes
        if grown == part:
            return seeds & ~part == 0
        part = grown


@kernel
def _is_simple(near):
    """Return whether turning the centre changes no topology of the inside or the outside."""
    outside = ~near & _ALL_26
    inside = near & _CLOSEST_18
    if not _is_one_part(outside, outside, _TOUCHING):
        return False
    return _is_one_part(inside, near & _CLOSEST_6, _EDGE_AWAY)


@kernel
def _is_pillar(near):
    """Return whether the inside falls apart, or loses a handle, without the centre.

    Its Euler number then rises: vertices less edges, plus squares, less cubes that are inside.
    """
    change = 0
    for box in range(27):
        if near & _BOXES[box] == _BOXES[box]:
            change += _BOX_SIGNS[box]
    return change < 0


@kernel
def _give_back(coords, index, inside, filled, chosen, cut_pillars):
    """Turn filled nodes outside where that changes no topology, and pillars if asked."""
    limit = index.shape[0] * 8
    # First in, first out: fronts from both ends of a tunnel then meet inside it.
    queue = np.empty(2 * len(chosen) + 64, np.int64)
    for level in range(_LEVELS - 1, -1, -1):
        head, tail = 0, 0
        for n in range(len(chosen)):
            if filled[chosen[n] // 512, chosen[n] % 512] == level:
                queue[tail] = chosen[n]
                tail += 1
        while head < tail:
            brick, offset = queue[head] // 512, queue[head] % 512
            head += 1
            if not inside[brick, offset]:
                continue
            near = _around(coords, index, inside, brick, offset)
            if not _is_simple(near) and not (cut_pillars and _is_pillar(near)):
                continue
            inside[brick, offset] = False
            x = coords[brick, 0] * 8 + (offset >> 6)
            y = coords[brick, 1] * 8 + ((offset >> 3) & 7)
            z = coords[brick, 2] * 8 + (offset & 7)
            for a in range(max(x - 1, 0), min(x + 2, limit)):
                for b in range(max(y - 1, 0), min(y + 2, limit)):
                    for c in range(max(z - 1, 0), min(z + 2, limit)):
                        other = index[a >> 3, b >> 3, c >> 3]
                        place = ((a & 7) * 8 + (b & 7)) * 8 + (c & 7)
                        if other < 0 or not inside[other, place] or filled[other, place] < level:
                            continue
                        if tail == len(queue):
                            more = np.empty(2 * tail, np.int64)
                            more[:tail] = queue
                            queue = more
                        queue[tail] = other * 512 + place
                        tail += 1
