"""Which face each sample of an image sees, by rasterising with a depth buffer.

Embree would trace the same rays at several times the cost: they leave one point on a regular grid.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import Camera

# Edges reach this far beyond the triangle, in barycentric units: rounding then leaves no gap
# between two triangles that share an edge.
_EDGE_SLACK = 1e-9


class Visible(NamedTuple):
    """The nearest surface of each sample of a window.

    Attributes:
        top, left: First row and column of the window, in samples.
        face: `[H, W]` int32 face, -1 where there is none.
        uv: `[H, W, 2]` float32 barycentric weights of the second and third corner.
    """

    top: int
    left: int
    face: NDArray[np.int32]
    uv: NDArray[np.float32]


def rasterise(mesh: Mesh, camera: Camera, supersample: int) -> Visible:
    """Return what a grid of supersample^2 samples per pixel sees, within the mesh's window.

    The window holds whole pixels and one more on each side for the filter; it is empty when the
    mesh lies outside the image.

    Raises:
        ValueError: A vertex lies beside or behind a pinhole camera.
    """
    transform = np.ascontiguousarray(camera.world_to_camera[:3])
    lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    placed, low, high, nearest_z = _place(mesh.vertices, transform, lens, camera.orthographic)
    if nearest_z <= 0 and not camera.orthographic:
        raise ValueError("the mesh reaches behind the camera")
    limit = (camera.width, camera.height)
    low = np.clip(np.floor(low) - 1, 0, limit).astype(int)
    high = np.clip(np.ceil(high) + 1, 0, limit).astype(int)
    left, top = (low * supersample).tolist()
    width, height = (np.maximum(high - low, 0) * supersample).tolist()
    face = np.full((height, width), -1, np.int32)
    uv = np.zeros((height, width, 2), np.float32)
    nearest = np.full((height, width), -np.inf)
    # In these coordinates sample (row, column) lies at (column, row).
    placed[:, :2] = placed[:, :2] * supersample - (0.5 + left, 0.5 + top)
    _fill(mesh.faces, placed, nearest, face, uv)
    return Visible(top, left, face, uv)


@kernel
def _place(vertices, transform, lens, orthographic):
    """Return `[V, 4]` image x, y, nearness, weight; the corners of their box; the least depth.

    Nearness and the weight of a corner in perspective-correct interpolation are linear over the
    image: both 1 / z of a pinhole; -z and 1 of parallel rays.
    """
    placed = np.empty((len(vertices), 4))
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    nearest_z = np.inf
    for v in range(len(vertices)):
        p = vertices[v]
        x, y, z = transform[0, 3], transform[1, 3], transform[2, 3]
        for a in range(3):
            x += transform[0, a] * p[a]
            y += transform[1, a] * p[a]
            z += transform[2, a] * p[a]
        nearest_z = min(nearest_z, z)
        if orthographic:
            placed[v, 2], placed[v, 3] = -z, 1.0
        elif z > 0:
            x, y = x / z, y / z
            placed[v, 2] = placed[v, 3] = 1 / z
        x, y = x * lens[0] + lens[2], y * lens[1] + lens[3]
        placed[v, 0], placed[v, 1] = x, y
        low[0], low[1] = min(low[0], x), min(low[1], y)
        high[0], high[1] = max(high[0], x), max(high[1], y)
    return placed, low, high, nearest_z


@kernel
def _fill(faces, placed, nearest, face, uv):
    height, width = face.shape
    for f in range(len(faces)):
        a, b, c = placed[faces[f, 0]], placed[faces[f, 1]], placed[faces[f, 2]]
        ax, ay = a[0], a[1]
        bx, by = b[0] - ax, b[1] - ay
        cx, cy = c[0] - ax, c[1] - ay
        first_x = max(math.ceil(ax + min(0.0, min(bx, cx)) - 1e-6), 0)
        last_x = min(math.floor(ax + max(0.0, max(bx, cx)) + 1e-6), width - 1)
        if first_x > last_x:
            continue
        first_y = max(math.ceil(ay + min(0.0, min(by, cy)) - 1e-6), 0)
        last_y = min(math.floor(ay + max(0.0, max(by, cy)) + 1e-6), height - 1)
        area = bx * cy - by * cx
        if first_y > last_y or area == 0:
            continue
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                px, py = x - ax, y - ay
                v = (px * cy - py * cx) / area
                w = (bx * py - by * px) / area
                u = 1 - v - w
                if u < -_EDGE_SLACK or v < -_EDGE_SLACK or w < -_EDGE_SLACK:
                    continue
                near = u * a[2] + v * b[2] + w * c[2]
                if near > nearest[y, x]:
                    nearest[y, x] = near
                    face[y, x] = f
                    total = u * a[3] + v * b[3] + w * c[3]
                    uv[y, x, 0] = v * b[3] / total
                    uv[y, x, 1] = w * c[3] / total
