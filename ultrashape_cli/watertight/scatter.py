"""Exact distances to triangles, written to the grid nodes near them.

All lengths are in cells. Large triangles are bisected first, so that each piece touches few nodes
and few bricks.
"""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bvh import point_triangle_squared
from ultrashape_cli.geometry.jit import kernel


def split_triangles(
    triangles: NDArray[np.float64],  # [F, 3, 3]
    longest: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return pieces `[P, 3, 3]` with edges of about `longest` at most, and the face `[P]` of each.

    The longest edge is bisected until the shortest one is short enough; the rest is cut across
    into a strip. A needle then gives pieces in proportion to its length, where splitting all edges
    evenly would give its square.
    """
    if not _any_longer(triangles, longest):
        return triangles, np.arange(len(triangles))
    return _split(np.ascontiguousarray(triangles), longest)


@kernel
def _any_longer(triangles, limit):
    squared = limit * limit
    for f in range(len(triangles)):
        for k in range(3):
            n = (k + 1) % 3
            total = 0.0
            for x in range(3):
                total += (triangles[f, n, x] - triangles[f, k, x]) ** 2
            if total > squared:
                return True
    return False


@kernel
def _edges(t):
    """Return the number of the longest and the shortest edge, and their lengths."""
    longest, shortest, high, low = 0, 0, -1.0, np.inf
    for k in range(3):
        n = (k + 1) % 3
        d = (t[n, 0] - t[k, 0]) ** 2 + (t[n, 1] - t[k, 1]) ** 2 + (t[n, 2] - t[k, 2]) ** 2
        if d > high:
            longest, high = k, d
        if d < low:
            shortest, low = k, d
    return longest, shortest, np.sqrt(high), np.sqrt(low)


@kernel
def _cut_across(t, shortest, count, pieces, face, f, made):
    """Write the strip of a needle, from its tip to its shortest edge; return the new count."""
    p, q, tip = t[shortest], t[(shortest + 1) % 3], t[(shortest + 2) % 3]
    for i in range(count):
        near, far = i / count, (i + 1) / count
        for x in range(3):
            pieces[made, 0, x] = tip[x] + near * (p[x] - tip[x])
            pieces[made, 1, x] = tip[x] + far * (p[x] - tip[x])
            pieces[made, 2, x] = tip[x] + far * (q[x] - tip[x])
        face[made] = f
        made += 1
        if i == 0:
            continue
        for x in range(3):
            pieces[made, 0, x] = tip[x] + near * (p[x] - tip[x])
            pieces[made, 1, x] = tip[x] + far * (q[x] - tip[x])
            pieces[made, 2, x] = tip[x] + near * (q[x] - tip[x])
        face[made] = f
        made += 1
    return made


@kernel
def _split(triangles, limit):
    pieces = np.empty((len(triangles) + 64, 3, 3))
    face = np.empty(len(triangles) + 64, np.int64)
    stack = np.empty((256, 3, 3))
    made = 0
    for f in range(len(triangles)):
        stack[0] = triangles[f]
        depth = 1
        while depth > 0:
            depth -= 1
            t = stack[depth].copy()
            longest, shortest, high, low = _edges(t)
            if high > limit and low > limit and depth < 250:
                n = (longest + 1) % 3
                for x in range(3):
                    middle = (t[longest, x] + t[n, x]) / 2
                    for v in range(3):
                        stack[depth, v, x] = middle if v == n else t[v, x]
                        stack[depth + 1, v, x] = middle if v == longest else t[v, x]
                depth += 2
                continue
            count = max(1, int(np.ceil(high / limit)))
            if made + 2 * count > len(pieces):
                more = np.empty((2 * len(pieces) + 2 * count, 3, 3))
                more[:made] = pieces[:made]
                more_face = np.empty(len(more), np.int64)
                more_face[:made] = face[:made]
                pieces, face = more, more_face
            made = _cut_across(t, shortest, count, pieces, face, f, made)
    return pieces[:made].copy(), face[:made].copy()


@kernel
def _normal(t):
    ux, uy, uz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    vx, vy, vz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    if length > 0:
        nx, ny, nz = nx / length, ny / length, nz / length
    return nx, ny, nz


@kernel
def _node_range(t, axis, band, num_nodes):
    low = min(t[0, axis], t[1, axis], t[2, axis]) - band
    high = max(t[0, axis], t[1, axis], t[2, axis]) + band
    return max(0, int(np.ceil(low))), min(num_nodes - 1, int(np.floor(high)))


@kernel
def mark_bricks(pieces, band, marks):
    """Set `marks [n, n, n]` for every brick that may hold a node within the band of a piece."""
    num_nodes = marks.shape[0] * 8
    # Half the diagonal of a brick's 8 nodes.
    reach = band + 3.5 * np.sqrt(3.0)
    for p in range(len(pieces)):
        t = pieces[p]
        nx, ny, nz = _normal(t)
        x0, x1 = _node_range(t, 0, band, num_nodes)
        y0, y1 = _node_range(t, 1, band, num_nodes)
        z0, z1 = _node_range(t, 2, band, num_nodes)
        for i in range(x0 >> 3, (x1 >> 3) + 1):
            for j in range(y0 >> 3, (y1 >> 3) + 1):
                for k in range(z0 >> 3, (z1 >> 3) + 1):
                    dx, dy, dz = i * 8 + 3.5 - t[0, 0], j * 8 + 3.5 - t[0, 1], k * 8 + 3.5 - t[0, 2]
                    if abs(nx * dx + ny * dy + nz * dz) <= reach:
                        marks[i, j, k] = True


@kernel
def _piece_squared(d1, d2, e0, e1, e2, height, ap, ab_length, ac_length, bc_length, scale):
    """Return the squared distance to a triangle a, b, c, from products of its edges.

    Args:
        d1, d2: Products of a-p with a-b and a-c.
        e0, e1, e2: Products ab.ab, ab.ac and ac.ac.
        height: Distance from the plane.
        ap: Squared distance from a.
        ab_length, ac_length, bc_length: Inverse squared edge lengths.
        scale: Inverse of e0 e2 - e1 e1.
    """
    v = e2 * d1 - e1 * d2
    w = e0 * d2 - e1 * d1
    if v >= 0 and w >= 0 and (v + w) * scale <= 1.0:
        return height * height
    best = np.inf
    if w < 0:
        t = min(max(d1 * ab_length, 0.0), 1.0)
        best = ap + t * (t * e0 - 2 * d1)
    if v < 0:
        t = min(max(d2 * ac_length, 0.0), 1.0)
        best = min(best, ap + t * (t * e2 - 2 * d2))
    if (v + w) * scale > 1.0:
        # From b towards c.
        f = d2 - e1 - (d1 - e0)
        t = min(max(f * bc_length, 0.0), 1.0)
        bp = ap - 2 * d1 + e0
        best = min(best, bp + t * (t * (e0 - 2 * e1 + e2) - 2 * f))
    return max(best, height * height)


@kernel
def scatter_distances(pieces, band, index, squared):
    """Lower `squared [B, 512]` to the squared distance of every piece within the band.

    All bricks within the band must exist (`mark_bricks`).
    """
    num_nodes = index.shape[0] * 8
    for p in range(len(pieces)):
        t = pieces[p]
        ax, ay, az = t[0, 0], t[0, 1], t[0, 2]
        ux, uy, uz = t[1, 0] - ax, t[1, 1] - ay, t[1, 2] - az
        vx, vy, vz = t[2, 0] - ax, t[2, 1] - ay, t[2, 2] - az
        e0, e1 = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz
        e2 = vx * vx + vy * vy + vz * vz
        bc = e0 - 2 * e1 + e2
        determinant = e0 * e2 - e1 * e1
        # Below this the plane of the triangle is rounding; it is measured as a needle.
        flat = not determinant > 1e-10 * max(e0, e2, bc) ** 2
        scale = 0.0 if flat else 1 / determinant
        nx, ny, nz = _normal(t)
        x0, x1 = _node_range(t, 0, band, num_nodes)
        y0, y1 = _node_range(t, 1, band, num_nodes)
        z0, z1 = _node_range(t, 2, band, num_nodes)
        for i in range(x0, x1 + 1):
            for j in range(y0, y1 + 1):
                x, y = i - ax, j - ay
                base = nx * x + ny * y - nz * az
                k0, k1 = z0, z1
                if abs(nz) > 1e-3:
                    # Only this stretch of the column lies within the band of the plane.
                    middle, half = -base / nz, band / abs(nz)
                    k0 = max(k0, int(np.ceil(middle - half)))
                    k1 = min(k1, int(np.floor(middle + half)))
                for k in range(k0, k1 + 1):
                    height = base + nz * k
                    brick = index[i >> 3, j >> 3, k >> 3]
                    offset = ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)
                    if height * height >= squared[brick, offset]:
                        continue
                    z = k - az
                    if flat:
                        d = point_triangle_squared(float(i), float(j), float(k), t[0], t[1], t[2])
                    else:
                        d = _piece_squared(
                            ux * x + uy * y + uz * z, vx * x + vy * y + vz * z, e0, e1, e2,
                            height, x * x + y * y + z * z, 1 / e0, 1 / e2, 1 / bc, scale,
                        )  # fmt: skip
                    if d < squared[brick, offset]:
                        squared[brick, offset] = d
