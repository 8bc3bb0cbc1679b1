"""Bounding volume hierarchy over triangles: closest point and ray crossings, in float64.

The closest point on a triangle follows Ericson, "Real-Time Collision Detection", 2005, section
5.1.5. Trees are split at the median of the longest axis. A small node also has a puck, a short
cylinder along its mean normal. The triangles of a fine mesh that face a distant point all have
boxes that reach closer than they do; flat pucks do not. On 1.6 M faces they cut the triangles
tested per point from 240 to 50 and the time to a third.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel

_LEAF_SIZE = 4
# Nodes of more triangles are rarely flat; their pucks cost more than they save.
_PUCK_SIZE = 128


class Tree(NamedTuple):
    """Arrays of a tree with K nodes over F triangles; node 0 is the root.

    Attributes:
        triangles: `[F, 3, 3]` corners in leaf order.
        faces: `[F]` original face of each triangle.
        low, high: `[K, 3]` boxes.
        pucks: `[K, 8]` centre, axis, half height and radius; unset above 128 triangles.
        child: `[K]` first of two neighbouring children, -1 for a leaf.
        first, last: `[K]` triangle range of a node, last exclusive.
    """

    triangles: NDArray[np.float64]
    faces: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pucks: NDArray[np.float64]
    child: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]


def build_tree(
    triangles: NDArray[np.float64],  # [F, 3, 3]
) -> Tree:
    """Return the tree of at least one triangle."""
    order = np.arange(len(triangles))
    low, high, child, first, last = _build(np.ascontiguousarray(triangles), order)
    ordered = np.ascontiguousarray(triangles[order])
    pucks = _fit_pucks(ordered, low, high, first, last)
    return Tree(ordered, order, low, high, pucks, child, first, last)


@kernel
def _point_segment_squared(px, py, pz, a, b):
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    x, y, z = px - a[0], py - a[1], pz - a[2]
    squared = ux * ux + uy * uy + uz * uz
    t = (x * ux + y * uy + z * uz) / squared if squared > 0 else 0.0
    t = min(max(t, 0.0), 1.0)
    x, y, z = x - t * ux, y - t * uy, z - t * uz
    return x * x + y * y + z * z


@kernel
def point_triangle_squared(px, py, pz, a, b, c):
    """Return the squared distance from a point to the triangle with corners `[3]` a, b, c."""
    abx, aby, abz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    acx, acy, acz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    apx, apy, apz = px - a[0], py - a[1], pz - a[2]
    d1 = abx * apx + aby * apy + abz * apz
    d2 = acx * apx + acy * apy + acz * apz
    if d1 <= 0 and d2 <= 0:
        return apx * apx + apy * apy + apz * apz
    bpx, bpy, bpz = px - b[0], py - b[1], pz - b[2]
    d3 = abx * bpx + aby * bpy + abz * bpz
    d4 = acx * bpx + acy * bpy + acz * bpz
    if d3 >= 0 and d4 <= d3:
        return bpx * bpx + bpy * bpy + bpz * bpz
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0 and d1 > d3:
        t = d1 / (d1 - d3)
        x, y, z = apx - t * abx, apy - t * aby, apz - t * abz
        return x * x + y * y + z * z
    cpx, cpy, cpz = px - c[0], py - c[1], pz - c[2]
    d5 = abx * cpx + aby * cpy + abz * cpz
    d6 = acx * cpx + acy * cpy + acz * cpz
    if d6 >= 0 and d5 <= d6:
        return cpx * cpx + cpy * cpy + cpz * cpz
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0 and d2 > d6:
        t = d2 / (d2 - d6)
        x, y, z = apx - t * acx, apy - t * acy, apz - t * acz
        return x * x + y * y + z * z
    va = d3 * d6 - d5 * d4
    q = (d4 - d3) + (d5 - d6)
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0 and q > 0:
        t = (d4 - d3) / q
        x, y, z = bpx - t * (c[0] - b[0]), bpy - t * (c[1] - b[1]), bpz - t * (c[2] - b[2])
        return x * x + y * y + z * z
    total = va + vb + vc
    # The total is the squared cross product of the edges. At rounding level the triangle is a
    # segment, on which the weights mean nothing.
    ab_squared = abx * abx + aby * aby + abz * abz
    ac_squared = acx * acx + acy * acy + acz * acz
    if total <= 1e-14 * ab_squared * ac_squared:
        ab = _point_segment_squared(px, py, pz, a, b)
        ac = _point_segment_squared(px, py, pz, a, c)
        return min(ab, ac, _point_segment_squared(px, py, pz, b, c))
    v, w = vb / total, vc / total
    x, y, z = apx - v * abx - w * acx, apy - v * aby - w * acy, apz - v * abz - w * acz
    return x * x + y * y + z * z


@kernel
def _fit_box(triangles, order, start, stop, low, high):
    """Fill the box of a node; return the axis along which centroids spread most, -1 if none."""
    low[:] = np.inf
    high[:] = -np.inf
    centre_low = np.full(3, np.inf)
    centre_high = np.full(3, -np.inf)
    for i in range(start, stop):
        for x in range(3):
            centre = 0.0
            for v in range(3):
                value = triangles[order[i], v, x]
                low[x] = min(low[x], value)
                high[x] = max(high[x], value)
                centre += value
            centre_low[x] = min(centre_low[x], centre)
            centre_high[x] = max(centre_high[x], centre)
    spread = centre_high - centre_low
    axis = np.argmax(spread)
    return axis if spread[axis] > 0 else -1


@kernel
def _select_median(keys, order, start, stop):
    """Reorder a range so that its lower half holds the smaller keys (Hoare's quickselect)."""
    middle = (start + stop) // 2
    left, right = start, stop - 1
    while left < right:
        pivot = keys[order[(left + right) // 2]]
        i, j = left, right
        while i <= j:
            while keys[order[i]] < pivot:
                i += 1
            while keys[order[j]] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            break
    return middle


@kernel
def _build(triangles, order):
    count = len(triangles)
    capacity = 4 * (count // _LEAF_SIZE + 1) + 3
    low = np.empty((capacity, 3), np.float64)
    high = np.empty((capacity, 3), np.float64)
    child = np.full(capacity, -1, np.int32)
    first = np.zeros(capacity, np.int32)
    last = np.zeros(capacity, np.int32)
    centres = np.empty((3, count))
    for i in range(count):
        for x in range(3):
            centres[x, i] = triangles[i, 0, x] + triangles[i, 1, x] + triangles[i, 2, x]
    stack = np.empty(128, np.int32)
    stack[0] = 0
    last[0] = count
    depth, used = 1, 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        start, stop = first[node], last[node]
        axis = _fit_box(triangles, order, start, stop, low[node], high[node])
        if stop - start <= _LEAF_SIZE or axis < 0:
            continue
        middle = _select_median(centres[axis], order, start, stop)
        child[node] = used
        first[used], last[used] = start, middle
        first[used + 1], last[used + 1] = middle, stop
        stack[depth], stack[depth + 1] = used, used + 1
        depth += 2
        used += 2
    return low[:used].copy(), high[:used].copy(), child[:used].copy(), first[:used], last[:used]


@kernel
def _fit_pucks(triangles, low, high, first, last):
    pucks = np.zeros((len(low), 8))
    for node in range(len(low)):
        if last[node] - first[node] > _PUCK_SIZE:
            continue
        normal = np.zeros(3)
        for i in range(first[node], last[node]):
            t = triangles[i]
            for x in range(3):
                y, z = (x + 1) % 3, (x + 2) % 3
                normal[x] += (t[1, y] - t[0, y]) * (t[2, z] - t[0, z])
                normal[x] -= (t[1, z] - t[0, z]) * (t[2, y] - t[0, y])
        length = np.sqrt((normal * normal).sum())
        # Without a direction the puck is a ball: height zero along a zero axis.
        normal /= length if length > 0 else 1.0
        centre = (low[node] + high[node]) / 2
        bottom, top, radius_squared = np.inf, -np.inf, 0.0
        for i in range(first[node], last[node]):
            for corner in range(3):
                height, squared = 0.0, 0.0
                for x in range(3):
                    arm = triangles[i, corner, x] - centre[x]
                    height += normal[x] * arm
                    squared += arm * arm
                bottom, top = min(bottom, height), max(top, height)
                radius_squared = max(radius_squared, squared - height * height)
        radius = np.sqrt(radius_squared)
        # Far above the rounding of these sums, far below what a distance is exact to.
        slack = 1e-13 * (np.abs(centre).sum() + radius + top - bottom)
        pucks[node, :3] = centre + (bottom + top) / 2 * normal
        pucks[node, 3:6] = normal
        pucks[node, 6] = (top - bottom) / 2 + slack
        pucks[node, 7] = radius + slack
    return pucks


@kernel
def _box_squared(px, py, pz, low, high, node):
    x = max(max(low[node, 0] - px, px - high[node, 0]), 0.0)
    y = max(max(low[node, 1] - py, py - high[node, 1]), 0.0)
    z = max(max(low[node, 2] - pz, pz - high[node, 2]), 0.0)
    return x * x + y * y + z * z


@kernel
def _puck_squared(px, py, pz, pucks, node):
    x, y, z = px - pucks[node, 0], py - pucks[node, 1], pz - pucks[node, 2]
    height = pucks[node, 3] * x + pucks[node, 4] * y + pucks[node, 5] * z
    reach = np.sqrt(max(x * x + y * y + z * z - height * height, 0.0))
    above = max(abs(height) - pucks[node, 6], 0.0)
    beside = max(reach - pucks[node, 7], 0.0)
    return above * above + beside * beside


@kernel
def closest_faces(tree, points):
    """Return the squared distance and the position in the tree of the closest triangle.

    The triangle of the previous point bounds the search, so neighbours should follow each other.
    """
    triangles, _, low, high, pucks, child, first, last = tree
    squared = np.empty(len(points))
    closest = np.empty(len(points), np.int64)
    stack = np.empty(128, np.int32)
    bound = np.empty(128)
    found = 0
    for i in range(len(points)):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        t = triangles[found]
        best = point_triangle_squared(px, py, pz, t[0], t[1], t[2])
        stack[0], bound[0] = 0, 0.0
        depth = 1
        while depth > 0:
            depth -= 1
            if bound[depth] >= best:
                continue
            node = stack[depth]
            if child[node] < 0:
                for k in range(first[node], last[node]):
                    t = triangles[k]
                    d = point_triangle_squared(px, py, pz, t[0], t[1], t[2])
                    if d < best:
                        best, found = d, k
                continue
            near, far = child[node], child[node] + 1
            near_squared = _box_squared(px, py, pz, low, high, near)
            far_squared = _box_squared(px, py, pz, low, high, far)
            if near_squared < best and last[near] - first[near] <= _PUCK_SIZE:
                near_squared = max(near_squared, _puck_squared(px, py, pz, pucks, near))
            if far_squared < best and last[far] - first[far] <= _PUCK_SIZE:
                far_squared = max(far_squared, _puck_squared(px, py, pz, pucks, far))
            if far_squared < near_squared:
                near, far = far, near
                near_squared, far_squared = far_squared, near_squared
            if far_squared < best:
                stack[depth], bound[depth] = far, far_squared
                depth += 1
            if near_squared < best:
                stack[depth], bound[depth] = near, near_squared
                depth += 1
        squared[i] = best
        closest[i] = found
    return squared, closest


@kernel
def _side(au, av, bu, bv, pu, pv):
    """Return on which side of the line a-b the point p lies: 1 left, -1 right, 0 if a equals b.

    Both triangles at an edge compute the same number, because its ends are put in order first. A
    point on the line counts as shifted by (e, e^2) for a tiny e, so that exactly one side owns it.
    """
    swap = 1
    if au > bu or (au == bu and av > bv):
        au, av, bu, bv = bu, bv, au, av
        swap = -1
    value = (bu - au) * (pv - av) - (bv - av) * (pu - au)
    if value == 0:
        value = av - bv
    if value == 0:
        value = bu - au
    if value > 0:
        return swap
    return -swap if value < 0 else 0


@kernel
def _crossing(t, u, v, w, p, upward):
    """Return the orientation, 1 or -1, with which the axis ray from p crosses a triangle, or 0."""
    ab = _side(t[0, u], t[0, v], t[1, u], t[1, v], p[u], p[v])
    bc = _side(t[1, u], t[1, v], t[2, u], t[2, v], p[u], p[v])
    if ab == 0 or ab != bc:
        return 0
    if _side(t[2, u], t[2, v], t[0, u], t[0, v], p[u], p[v]) != ab:
        return 0
    wa = abs((t[1, u] - p[u]) * (t[2, v] - p[v]) - (t[1, v] - p[v]) * (t[2, u] - p[u]))
    wb = abs((t[2, u] - p[u]) * (t[0, v] - p[v]) - (t[2, v] - p[v]) * (t[0, u] - p[u]))
    wc = abs((t[0, u] - p[u]) * (t[1, v] - p[v]) - (t[0, v] - p[v]) * (t[1, u] - p[u]))
    total = wa + wb + wc
    if total == 0:
        return 0
    height = (wa * t[0, w] + wb * t[1, w] + wc * t[2, w]) / total
    if upward:
        return ab if height > p[w] else 0
    return -ab if height < p[w] else 0


@kernel
def axis_crossings(tree, points, axis):
    """Return the signed and the absolute number of crossings of axis-parallel rays, `[N]` each.

    The signed number is the winding number of a closed, consistently wound mesh. The ray takes
    the shorter way out of the bounding box.
    """
    triangles, _, low, high, _, child, first, last = tree
    u, v, w = (axis + 1) % 3, (axis + 2) % 3, axis
    signed = np.zeros(len(points), np.int32)
    total = np.zeros(len(points), np.int32)
    stack = np.empty(128, np.int32)
    for i in range(len(points)):
        p = points[i]
        upward = 2 * p[w] > low[0, w] + high[0, w]
        stack[0] = 0
        depth = 1
        while depth > 0:
            depth -= 1
            node = stack[depth]
            if p[u] < low[node, u] or p[u] > high[node, u]:
                continue
            if p[v] < low[node, v] or p[v] > high[node, v]:
                continue
            if (upward and p[w] > high[node, w]) or (not upward and p[w] < low[node, w]):
                continue
            if child[node] >= 0:
                stack[depth], stack[depth + 1] = child[node], child[node] + 1
                depth += 2
                continue
            for k in range(first[node], last[node]):
                sign = _crossing(triangles[k], u, v, w, p, upward)
                signed[i] += sign
                total[i] += abs(sign)
    return signed, total
