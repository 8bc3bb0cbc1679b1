"""Signed distances of primitives in their own frame, negative inside.

Away from its surface a value may be less than the distance, never much more: bricks are chosen by
it. `row` is what `blends.Part.row` returns, `table` the numbers that tables of parts hold.
"""

from __future__ import annotations

import math
from enum import IntEnum

from ultrashape_cli.geometry.jit import kernel


class Shape(IntEnum):
    """Primitives; `size` is their radii or half-sides in their own frame."""

    ELLIPSOID = 0
    BOX = 1
    """rounded by `round`"""
    CYLINDER = 2
    """around y: size[0] its radius, size[1] half its height; rounded by `round`"""
    CAPSULE = 3
    """along y from the origin: size[1] its length, radius size[0], at the end size[2]"""
    TORUS = 4
    """around y: size[0] its radius, size[1] that of the tube"""
    EGG = 5
    """an ellipsoid whose girth changes by `taper` towards +y and by -`taper` towards -y"""
    CONE = 6
    """around y: radius size[0] below, size[2] above, size[1] half its height"""
    PRISM = 7
    """a polygon (table `[K, 2]`) in xy, size[2] half its depth along z; rounded by `round`"""
    REVOLVED = 8
    """a polygon (table `[K, 2]`) of radius and height, turned around y; squashed as a tube is"""
    TUBE = 9
    """along a curve (table `[K, 8]`: point, radius, normal, length so far); then squashed along x
    by 1 + `taper`"""
    RELIEF = 10
    """heights (table `[n * n]`, x first) over a square of half-side size[0]: ground down to
    -size[1], or with `taper` 1 a sheet of half-thickness size[1]; `round` is its steepest slope"""
    GEM = 11
    """what lies behind planes (table `[K, 4]`: normal and distance)"""
    HALF_SPACE = 12
    """below y = 0"""


@kernel
def primitive(u, v, w, row, table):
    """Return the distance, and the place in a frame whose y runs along the part."""
    kind = int(row[0])
    if kind <= 4:
        return _solid(u, v, w, row), u, v, w
    if kind == 9:
        return _tube(u, v, w, row, table)
    return _shaped(u, v, w, row, table), u, v, w


@kernel
def lower_bound(u, v, w, row, table):
    """Return a distance that changes no faster than the place does."""
    if int(row[0]) == 0:
        a, b, c = row[10], row[11], row[12]
        scaled = math.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        return (scaled - 1.0) * min(a, min(b, c))
    if int(row[0]) == 10:
        return _relief(u, v, w, row, table, row[6])
    return primitive(u, v, w, row, table)[0]


@kernel
def _solid(u, v, w, row):
    a, b, c = row[10], row[11], row[12]
    kind = int(row[0])
    if kind == 0:
        # First-order distance: exact at the surface, a lower bound close to it.
        k0 = math.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        k1 = math.sqrt((u / (a * a)) ** 2 + (v / (b * b)) ** 2 + (w / (c * c)) ** 2)
        return k0 * (k0 - 1.0) / max(k1, 1e-6) if k0 < 1.5 else (k0 - 1.0) * min(a, min(b, c))
    if kind == 1:
        x, y, z = abs(u) - a + row[6], abs(v) - b + row[6], abs(w) - c + row[6]
        far = math.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2 + max(z, 0.0) ** 2)
        return far + min(max(x, max(y, z)), 0.0) - row[6]
    if kind == 2:
        x, y = _radius(u, w, row) - a + row[6], abs(v) - b + row[6]
        far = math.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2)
        return far + min(max(x, y), 0.0) - row[6]
    if kind == 3:
        t = min(max(v / max(b, 1e-9), 0.0), 1.0)
        return math.sqrt(u * u + (v - t * b) ** 2 + w * w) - (a + (c - a) * t)
    ring = math.sqrt(u * u + w * w) - a
    return math.sqrt(ring * ring + v * v) - b


@kernel
def _radius(u, w, row):
    """Return the distance to y; with `sides`, to the side of a polygon of that inner radius."""
    far = math.sqrt(u * u + w * w)
    if row[23] < 3:
        return far
    half = math.pi / row[23]
    return far * math.cos((math.atan2(u, w) + half) % (2 * half) - half)


@kernel
def _shaped(u, v, w, row, table):
    a, b, c = row[10], row[11], row[12]
    kind = int(row[0])
    start, count = int(row[24]), int(row[25])
    if kind == 5:
        girth = 1.0 + row[22] * min(max(v / b, -1.0), 1.0)
        a, c = a * girth, c * girth
        k0 = math.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        k1 = math.sqrt((u / (a * a)) ** 2 + (v / (b * b)) ** 2 + (w / (c * c)) ** 2)
        return k0 * (k0 - 1.0) / max(k1, 1e-6)
    if kind == 6:
        return _cone(_radius(u, w, row), v, a - row[6], b - row[6], c - row[6]) - row[6]
    if kind == 7:
        x, y = _polygon(u, v, table, start, count // 2) + row[6], abs(w) - c + row[6]
        far = math.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2)
        return far + min(max(x, y), 0.0) - row[6]
    if kind == 8:
        squash = 1.0 + row[22]
        far = _polygon(_radius(u * squash, w, row), v, table, start, count // 2) - row[6]
        if squash != 1.0:
            side = u * u * squash * squash / max(u * u * squash * squash + w * w, 1e-12)
            far /= math.sqrt(1.0 + (squash * squash - 1.0) * side)
        return far
    if kind == 10:
        return _relief(u, v, w, row, table, -1.0)
    if kind == 11:
        far = -1e9
        for k in range(start, start + count, 4):
            along = table[k] * u + table[k + 1] * v + table[k + 2] * w
            far = max(far, along - table[k + 3])
        return far
    return v


@kernel
def _cone(r, v, low, half, high):
    """Exact distance of a capped cone (Inigo Quilez, "distance functions")."""
    low, high = max(low, 1e-4), max(high, 1e-4)
    ax, ay = r - min(r, low if v < 0 else high), abs(v) - half
    kx, ky = high - low, 2 * half
    t = min(max(((high - r) * kx + (half - v) * ky) / (kx * kx + ky * ky), 0.0), 1.0)
    bx, by = r - high + kx * t, v - half + ky * t
    far = math.sqrt(min(ax * ax + ay * ay, bx * bx + by * by))
    return -far if bx < 0 and ay < 0 else far


@kernel
def _polygon(x, y, table, start, count):
    """Exact distance of a polygon (Inigo Quilez, "2D distance functions")."""
    last = start + 2 * (count - 1)
    px, py = table[last], table[last + 1]
    far, sign = 1e18, 1.0
    for k in range(start, start + 2 * count, 2):
        qx, qy = table[k], table[k + 1]
        ex, ey, wx, wy = px - qx, py - qy, x - qx, y - qy
        t = min(max((wx * ex + wy * ey) / max(ex * ex + ey * ey, 1e-18), 0.0), 1.0)
        dx, dy = wx - ex * t, wy - ey * t
        far = min(far, dx * dx + dy * dy)
        above, below, left = y >= qy, y < py, ex * wy > ey * wx
        if (above and below and left) or (not above and not below and not left):
            sign = -sign
        px, py = qx, qy
    return sign * math.sqrt(far)


@kernel
def _tube(u, v, w, row, table):
    start, count = int(row[24]), int(row[25])
    nearest, best, at = 1e18, start, 0.0
    # Measured before it is squashed; divided by how much faster that changes.
    squash = 1.0 + row[22]
    u *= squash
    for k in range(start, start + count - 8, 8):
        ex, ey, ez = (
            table[k + 8] - table[k],
            table[k + 9] - table[k + 1],
            table[k + 10] - table[k + 2],
        )
        px, py, pz = u - table[k], v - table[k + 1], w - table[k + 2]
        t = (px * ex + py * ey + pz * ez) / max(ex * ex + ey * ey + ez * ez, 1e-18)
        t = min(max(t, 0.0), 1.0)
        px, py, pz = px - t * ex, py - t * ey, pz - t * ez
        far = math.sqrt(px * px + py * py + pz * pz)
        far -= table[k + 3] + t * (table[k + 11] - table[k + 3])
        if far < nearest:
            nearest, best, at = far, k, t
    k = best
    ex, ey, ez = table[k + 8] - table[k], table[k + 9] - table[k + 1], table[k + 10] - table[k + 2]
    long = max(math.sqrt(ex * ex + ey * ey + ez * ez), 1e-9)
    ex, ey, ez = ex / long, ey / long, ez / long
    nx = table[k + 4] + at * (table[k + 12] - table[k + 4])
    ny = table[k + 5] + at * (table[k + 13] - table[k + 5])
    nz = table[k + 6] + at * (table[k + 14] - table[k + 6])
    px = u - table[k] - at * long * ex
    py = v - table[k + 1] - at * long * ey
    pz = w - table[k + 2] - at * long * ez
    # The second normal is the cross product of the direction and the first.
    bx, by, bz = ey * nz - ez * ny, ez * nx - ex * nz, ex * ny - ey * nx
    if row[23] >= 3:
        # The radius in the frame of the normals, with flat sides.
        x, z = px * nx + py * ny + pz * nz, px * bx + py * by + pz * bz
        nearest += _radius(x, z, row) - math.sqrt(x * x + z * z)
    along = table[k + 7] + at * long + px * ex + py * ey + pz * ez
    if squash != 1.0:
        far = max(math.sqrt(px * px + py * py + pz * pz), 1e-9)
        nearest /= math.sqrt(1.0 + (squash * squash - 1.0) * (px / far) ** 2)
    return nearest, px * nx + py * ny + pz * nz, along, px * bx + py * by + pz * bz


@kernel
def _relief(u, v, w, row, table, steepest):
    """Return the distance by the slope below the point, or by the steepest if that is given."""
    a, b, start = row[10], row[11], int(row[24])
    n = round(math.sqrt(row[25]))
    x = min(max((u / a + 1) * 0.5, 0.0), 0.9999) * (n - 1)
    z = min(max((w / a + 1) * 0.5, 0.0), 0.9999) * (n - 1)
    i, k = int(x), int(z)
    x, z = x - i, z - k
    at = start + i * n + k
    h00, h01, h10, h11 = table[at], table[at + 1], table[at + n], table[at + n + 1]
    height = (h00 * (1 - x) + h10 * x) * (1 - z) + (h01 * (1 - x) + h11 * x) * z
    step = 2 * a / (n - 1)
    dx = ((h10 - h00) * (1 - z) + (h11 - h01) * z) / step
    dz = ((h01 - h00) * (1 - x) + (h11 - h10) * x) / step
    # Upright distance over the slope is the first-order distance to the surface.
    slope = dx * dx + dz * dz if steepest < 0 else steepest * steepest
    far = (v - height) / math.sqrt(1 + slope)
    far = abs(far) - b if row[22] > 0 else max(far, -b - v)
    return max(far, max(abs(u) - a, abs(w) - a))
