"""Surface points, sample directions and the brightness of a surface under a rig of lights.

All arrays are float32: P points or pixels, S samples, F faces.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel

CLAY_ALBEDO = 0.48
_GLOSS, _GLOSS_POWER = 0.06, 24.0


def hammersley(count: int) -> NDArray[np.float32]:
    """Return evenly spread points `[count, 2]` in the unit square: (k + 1/2) / count, radical."""
    points = np.empty((count, 2), np.float32)
    for k in range(count):
        reverse, digit, rest = 0.0, 0.5, k
        while rest:
            reverse += digit * (rest & 1)
            rest >>= 1
            digit /= 2
        points[k] = (k + 0.5) / count, reverse
    return points


def pixel_shifts(size: int, seed: int) -> NDArray[np.float32]:
    """Return 2D shifts `[size, size, 2]` that are spread evenly over any window of this size.

    A pixel adds its shift to the shared pattern. Together the pixels of one window then cover the
    square as a pattern of size^2 times as many points would, which is what the filter relies on.
    """
    rng = np.random.default_rng(seed)
    count = size * size
    cells = np.stack(np.divmod(rng.permutation(count), size), axis=1)
    return ((cells + rng.random((count, 2))) / size).astype(np.float32).reshape(size, size, 2)


@kernel
def surface_points(faces, vertices, corners, hit_face, uv, eye, axis):
    """Return the point, smooth normal, face normal and ray origin of each hit, `[P, 3]` each.

    Normals face the viewer: at `eye [3]`, or if that is not finite, along the parallel rays `axis`.
    The ray origin is the point moved out to the curved surface that the normals describe (Hanika,
    "Hacking the Shadow Terminator", 2021), so that flat triangles throw no shadow on their
    smooth-shaded neighbours.
    """
    count = len(hit_face)
    points = np.empty((count, 3), np.float32)
    smooth = np.empty((count, 3), np.float32)
    flat = np.empty((count, 3), np.float32)
    origins = np.empty((count, 3), np.float32)
    weight = np.empty(3)
    parallel = not math.isfinite(eye[0])
    for i in range(count):
        f = hit_face[i]
        weight[0], weight[1], weight[2] = 1 - uv[i, 0] - uv[i, 1], uv[i, 0], uv[i, 1]
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        gx, gy, gz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = math.sqrt(gx * gx + gy * gy + gz * gz)
        if length > 0:
            gx, gy, gz = gx / length, gy / length, gz / length
        px = weight[0] * a[0] + weight[1] * b[0] + weight[2] * c[0]
        py = weight[0] * a[1] + weight[1] * b[1] + weight[2] * c[1]
        pz = weight[0] * a[2] + weight[1] * b[2] + weight[2] * c[2]
        if parallel:
            towards = gx * axis[0] + gy * axis[1] + gz * axis[2]
        else:
            towards = gx * (px - eye[0]) + gy * (py - eye[1]) + gz * (pz - eye[2])
        turn = -1.0 if towards > 0 else 1.0
        nx, ny, nz, ox, oy, oz = 0.0, 0.0, 0.0, px, py, pz
        for k in range(3):
            n = corners[f, k]
            v = vertices[faces[f, k]]
            nx += weight[k] * n[0]
            ny += weight[k] * n[1]
            nz += weight[k] * n[2]
            below = turn * ((px - v[0]) * n[0] + (py - v[1]) * n[1] + (pz - v[2]) * n[2])
            if below < 0:
                ox -= weight[k] * below * turn * n[0]
                oy -= weight[k] * below * turn * n[1]
                oz -= weight[k] * below * turn * n[2]
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length > 1e-6:
            nx, ny, nz = nx / length, ny / length, nz / length
        else:
            nx, ny, nz = gx, gy, gz
        points[i, 0], points[i, 1], points[i, 2] = px, py, pz
        smooth[i, 0], smooth[i, 1], smooth[i, 2] = turn * nx, turn * ny, turn * nz
        flat[i, 0], flat[i, 1], flat[i, 2] = turn * gx, turn * gy, turn * gz
        origins[i, 0], origins[i, 1], origins[i, 2] = ox, oy, oz
    return points, smooth, flat, origins


@kernel
def hemisphere_directions(normals, flat, shifts, pattern):
    """Return cosine-weighted directions `[P, K, 3]` about normals, each pixel with its shift.

    A direction below the flat face is mirrored up: on coarse meshes it would hit the face itself.
    The frame follows Duff et al., "Building an Orthonormal Basis, Revisited", 2017.
    """
    directions = np.empty((len(normals), len(pattern), 3), np.float32)
    for i in range(len(normals)):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        sign = 1.0 if nz >= 0 else -1.0
        p = -1.0 / (sign + nz)
        q = nx * ny * p
        for k in range(len(pattern)):
            u = (pattern[k, 0] + shifts[i, 0]) % 1.0
            angle = 2 * math.pi * ((pattern[k, 1] + shifts[i, 1]) % 1.0)
            r, h = math.sqrt(u), math.sqrt(1 - u)
            x, y = r * math.cos(angle), r * math.sin(angle)
            dx = x * (1 + sign * nx * nx * p) + y * q + h * nx
            dy = x * sign * q + y * (sign + ny * ny * p) + h * ny
            dz = -x * sign * nx - y * ny + h * nz
            below = min(dx * flat[i, 0] + dy * flat[i, 1] + dz * flat[i, 2], 0.0)
            directions[i, k, 0] = dx - 2 * below * flat[i, 0]
            directions[i, k, 1] = dy - 2 * below * flat[i, 1]
            directions[i, k, 2] = dz - 2 * below * flat[i, 2]
    return directions


@kernel
def light_directions(light, right, up, radius, shifts, pattern):
    """Return directions `[P, K, 3]` to points of a disc-shaped light, each pixel with its shift."""
    directions = np.empty((len(shifts), len(pattern), 3), np.float32)
    for i in range(len(shifts)):
        for k in range(len(pattern)):
            r = radius * math.sqrt((pattern[k, 0] + shifts[i, 0]) % 1.0)
            angle = 2 * math.pi * ((pattern[k, 1] + shifts[i, 1]) % 1.0)
            x, y = r * math.cos(angle), r * math.sin(angle)
            for a in range(3):
                directions[i, k, a] = light[a] + x * right[a] + y * up[a]
    return directions


@kernel
def filter_factors(factors, normals, points, seen, near, size):
    """Return factors `[H, W, K]` averaged over the size x size pixels around, within one surface.

    A neighbour that is `seen` counts if its point lies less than `near` off the tangent plane and
    its normal turns less than 25 degrees or so.
    """
    height, width, num = factors.shape
    result = np.zeros_like(factors)
    total = np.empty(num)
    back = size // 2
    for y in range(height):
        for x in range(width):
            if not seen[y, x]:
                continue
            total[:] = 0
            weight = 0.0
            nx, ny, nz = normals[y, x, 0], normals[y, x, 1], normals[y, x, 2]
            px, py, pz = points[y, x, 0], points[y, x, 1], points[y, x, 2]
            for j in range(max(y - back, 0), min(y - back + size, height)):
                for i in range(max(x - back, 0), min(x - back + size, width)):
                    if not seen[j, i]:
                        continue
                    n, p = normals[j, i], points[j, i]
                    if n[0] * nx + n[1] * ny + n[2] * nz < 0.9:
                        continue
                    off = (p[0] - px) * nx + (p[1] - py) * ny + (p[2] - pz) * nz
                    if abs(off) > near:
                        continue
                    weight += 1
                    for k in range(num):
                        total[k] += factors[j, i, k]
            for k in range(num):
                result[y, x, k] = total[k] / weight if weight > 0 else factors[y, x, k]
    return result


@kernel
def matching_factors(factors, normals, points, seen, pixel, sample_normals, sample_points, near):
    """Return the factors `[S, K]` of samples: of their pixel, or of a neighbour that fits better.

    At the edge of a surface the point traced for a pixel may lie on another surface than some of
    its samples, which would carry light into a shadow.
    """
    height, width, num = factors.shape
    result = np.empty((len(pixel), num), np.float32)
    for s in range(len(pixel)):
        y, x = pixel[s] // width, pixel[s] % width
        p, n = sample_points[s], sample_normals[s]
        best = _mismatch(p, n, points[y, x], normals[y, x], near)
        row, column = y, x
        if best > 0.2:
            for j in range(max(y - 1, 0), min(y + 2, height)):
                for i in range(max(x - 1, 0), min(x + 2, width)):
                    if seen[j, i]:
                        other = _mismatch(p, n, points[j, i], normals[j, i], near)
                        if other < best:
                            best, row, column = other, j, i
        for k in range(num):
            result[s, k] = factors[row, column, k]
    return result


@kernel
def _mismatch(p, n, q, m, near):
    """Return how little a point p with normal n fits the tangent plane at q with normal m."""
    off = (p[0] - q[0]) * m[0] + (p[1] - q[1]) * m[1] + (p[2] - q[2]) * m[2]
    return abs(off) / near + 1 - (n[0] * m[0] + n[1] * m[1] + n[2] * m[2])


@kernel
def shade(normals, view, lights, colours, sky, factors, albedo):
    """Return linear RGB `[S, 3]` of a surface with a slight gloss.

    Args:
        normals: `[S, 3]` unit, towards the viewer.
        view: `[S, 3]` or `[1, 3]` directions from the eye, any length.
        lights: `[3, 3]` unit directions to key, fill and rim.
        colours: `[3, 3]` RGB of the lights.
        sky: `[3]` RGB of the ambient light.
        factors: `[S, 2]` visible parts of the sky and of the key light.
        albedo: `[S, 3]` or `[1, 3]` diffuse reflectance.
    """
    result = np.empty((len(normals), 3), np.float32)
    for i in range(len(normals)):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        v = view[min(i, len(view) - 1)]
        base = albedo[min(i, len(albedo) - 1)]
        ambient, shadow = factors[i, 0], factors[i, 1]
        length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
        key = max(nx * lights[0, 0] + ny * lights[0, 1] + nz * lights[0, 2], 0.0) * shadow
        fill = nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2]
        rim = nx * lights[2, 0] + ny * lights[2, 1] + nz * lights[2, 2]
        # Wrapped by half: the fill has no border of its own. Neither fill nor rim casts shadows,
        # so both follow the ambient visibility.
        fill = max((fill + 0.5) / 1.5, 0.0) * ambient
        rim = max(rim, 0.0) * ambient
        hx, hy, hz = (lights[0, 0] - v[0] / length, lights[0, 1] - v[1] / length,
                      lights[0, 2] - v[2] / length)  # fmt: skip
        half = math.sqrt(hx * hx + hy * hy + hz * hz)
        glint = 0.0
        if key > 0 and half > 0:
            glint = _GLOSS * shadow * max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** _GLOSS_POWER
        for k in range(3):
            light = colours[0, k] * key + colours[1, k] * fill + colours[2, k] * rim
            result[i, k] = base[k] * (light + sky[k] * ambient) + glint * colours[0, k]
    return result
