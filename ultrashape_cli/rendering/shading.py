"""Normals with creases, sample directions and the light of the clay renders.

All arrays are float32: P points or pixels, S subsamples, F faces.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh

# Faces that meet at more than this angle keep a visible edge.
CREASE_DEGREES = 40.0
CLAY_ALBEDO = 0.48

# Directions towards the lights in camera axes (x right, y down, z forward), and strengths. With
# the albedo the brightest diffuse point stays below 0.95, so that nothing but glints could clip.
KEY_DIRECTION = (-0.55, -0.75, -0.7)
_FILL_DIRECTION = (0.85, -0.1, -0.6)
_RIM_DIRECTION = (0.35, -0.7, 0.75)
_KEY, _FILL, _RIM, _AMBIENT = 1.05, 0.14, 0.35, 0.26
# Half-angle of the key light seen from the object: the width of shadow borders.
KEY_RADIUS = 0.12
_GLOSS, _GLOSS_POWER = 0.06, 24.0


def corner_normals(mesh: Mesh, crease_degrees: float = CREASE_DEGREES) -> NDArray[np.float32]:
    """Return a normal for each face corner `[F, 3, 3]`: smooth inside, split along creases.

    A corner averages, by area, the faces around its vertex that turn less than the crease angle
    away from its own face. Vertices at one position count as one.
    """
    vectors = mesh.area_vectors
    normals = mesh.face_normals
    faces = _merged_faces(mesh)
    order = np.argsort(faces.ravel(), kind="stable")
    starts = np.searchsorted(faces.ravel()[order], np.arange(int(faces.max(initial=0)) + 2))
    limit = math.cos(math.radians(crease_degrees))
    return _average_corners(faces, order // 3, starts, vectors, normals, limit)


def _merged_faces(mesh: Mesh) -> NDArray[np.int64]:
    """Return faces that use one number for all vertices at one position."""
    keys = np.ascontiguousarray(mesh.vertices + 0.0).view([("", np.float64)] * 3).ravel()
    _, inverse = np.unique(keys, return_inverse=True)
    return inverse.ravel()[mesh.faces]


@kernel
def _average_corners(faces, around, starts, vectors, normals, limit):
    result = np.empty((len(faces), 3, 3), np.float32)
    for f in range(len(faces)):
        for corner in range(3):
            x, y, z = 0.0, 0.0, 0.0
            v = faces[f, corner]
            for k in range(starts[v], starts[v + 1]):
                g = around[k]
                cosine = (
                    normals[f, 0] * normals[g, 0]
                    + normals[f, 1] * normals[g, 1]
                    + normals[f, 2] * normals[g, 2]
                )
                if cosine >= limit:
                    x += vectors[g, 0]
                    y += vectors[g, 1]
                    z += vectors[g, 2]
            length = math.sqrt(x * x + y * y + z * z)
            if length > 0:
                result[f, corner, 0] = x / length
                result[f, corner, 1] = y / length
                result[f, corner, 2] = z / length
            else:
                for a in range(3):
                    result[f, corner, a] = normals[f, a]
    return result


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
def surface_points(faces, vertices, corners, hit_face, uv, view):
    """Return the point, smooth normal, face normal and ray origin of each hit, `[P, 3]` each.

    Normals face the viewer (`view [P, 3]` runs from the eye). The ray origin is the point moved
    out to the curved surface that the normals describe (Hanika, "Hacking the Shadow Terminator",
    2021), so that flat triangles throw no shadow on their smooth-shaded neighbours.
    """
    count = len(hit_face)
    points = np.empty((count, 3), np.float32)
    smooth = np.empty((count, 3), np.float32)
    flat = np.empty((count, 3), np.float32)
    origins = np.empty((count, 3), np.float32)
    weight = np.empty(3)
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
        turn = -1.0 if gx * view[i, 0] + gy * view[i, 1] + gz * view[i, 2] > 0 else 1.0
        px = weight[0] * a[0] + weight[1] * b[0] + weight[2] * c[0]
        py = weight[0] * a[1] + weight[1] * b[1] + weight[2] * c[1]
        pz = weight[0] * a[2] + weight[1] * b[2] + weight[2] * c[2]
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
def hemisphere_directions(normals, shifts, pattern):
    """Return cosine-weighted directions `[P, K, 3]` about normals, each pixel with its shift.

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
            directions[i, k, 0] = x * (1 + sign * nx * nx * p) + y * q + h * nx
            directions[i, k, 1] = x * sign * q + y * (sign + ny * ny * p) + h * ny
            directions[i, k, 2] = -x * sign * nx - y * ny + h * nz
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
def filter_factors(factors, normals, depth, near, size):
    """Return factors `[H, W, K]` averaged over the size x size pixels around, within one surface.

    Depth 0 marks background. A neighbour counts if its depth differs by less than `near` and its
    normal turns less than 25 degrees or so.
    """
    height, width, num = factors.shape
    result = np.zeros_like(factors)
    total = np.empty(num)
    back = size // 2
    for y in range(height):
        for x in range(width):
            if depth[y, x] == 0:
                continue
            total[:] = 0
            weight = 0.0
            for j in range(max(y - back, 0), min(y - back + size, height)):
                for i in range(max(x - back, 0), min(x - back + size, width)):
                    if depth[j, i] == 0 or abs(depth[j, i] - depth[y, x]) > near:
                        continue
                    cosine = (
                        normals[j, i, 0] * normals[y, x, 0]
                        + normals[j, i, 1] * normals[y, x, 1]
                        + normals[j, i, 2] * normals[y, x, 2]
                    )
                    if cosine < 0.9:
                        continue
                    weight += 1
                    for k in range(num):
                        total[k] += factors[j, i, k]
            for k in range(num):
                result[y, x, k] = total[k] / weight if weight > 0 else factors[y, x, k]
    return result


def light_axes(camera_to_world: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return unit world directions `[3, 3]` to the key, fill and rim lights of a camera."""
    local = np.array([KEY_DIRECTION, _FILL_DIRECTION, _RIM_DIRECTION])
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return (local @ camera_to_world.T).astype(np.float32)


@kernel
def shade(normals, view, lights, ambient, shadow, albedo):
    """Return linear brightness `[S]` of clay under the three lights.

    Args:
        normals: `[S, 3]` unit, towards the viewer.
        view: `[S, 3]` directions from the eye, any length.
        lights: `[3, 3]` unit directions to key, fill and rim.
        ambient: `[S]` visible part of the sky.
        shadow: `[S]` visible part of the key light.
        albedo: Diffuse reflectance.
    """
    result = np.empty(len(normals), np.float32)
    for i in range(len(normals)):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        vx, vy, vz = view[i, 0], view[i, 1], view[i, 2]
        length = math.sqrt(vx * vx + vy * vy + vz * vz)
        key = max(nx * lights[0, 0] + ny * lights[0, 1] + nz * lights[0, 2], 0.0) * shadow[i]
        fill = nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2]
        rim = nx * lights[2, 0] + ny * lights[2, 1] + nz * lights[2, 2]
        # Wrapped by half: the fill has no border of its own. Neither fill nor rim casts shadows,
        # so both follow the ambient visibility.
        fill = max((fill + 0.5) / 1.5, 0.0) * ambient[i]
        rim = max(rim, 0.0) * ambient[i]
        hx, hy, hz = (lights[0, 0] - vx / length, lights[0, 1] - vy / length,
                      lights[0, 2] - vz / length)  # fmt: skip
        half = math.sqrt(hx * hx + hy * hy + hz * hz)
        glint = max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** _GLOSS_POWER if half > 0 else 0.0
        diffuse = _KEY * key + _FILL * fill + _RIM * rim + _AMBIENT * ambient[i]
        result[i] = albedo * diffuse + _GLOSS * glint * (shadow[i] if key > 0 else 0.0)
    return result


def to_srgb(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return sRGB values in [0, 1] (IEC 61966-2-1) of linear ones, clipped."""
    linear = np.clip(linear, 0.0, 1.0)
    curved = 1.055 * np.power(np.maximum(linear, 1e-12), 1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)
