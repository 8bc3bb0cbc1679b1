"""Colours of a source file at points of the watertight mesh made from it.

The watertight mesh has no texture coordinates. A point takes the colour of the source right in
front of it or behind it, along the normal, and where nothing is that near, of its closest point.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.meshfiles.appearance import Appearance
from ultrashape_cli.rendering.film import from_srgb, to_srgb
from ultrashape_cli.rendering.shading import CLAY_ALBEDO

_LINEAR = from_srgb(np.arange(256) / 255)
# Paper is white; a surface that reflects more would clip under any light.
_MAX_ALBEDO = 0.8
# How far along the normal the source is looked for, as part of its longest side: a cell of the
# remesher is at most 1/512 of it by default. Rays cost a fifth of the closest point.
_REACH = 2e-3
_WRAPS = ("repeat", "mirror", "clamp")
_MIRROR, _CLAMP = 1, 2


class SurfaceColours:
    """The colours of a source file, ready to be asked for at points in the normalised frame."""

    def __init__(self, appearance: Appearance, frame: Frame) -> None:
        mesh = appearance.mesh
        # A face with a corner at infinity has no closest point.
        kept = np.flatnonzero(np.isfinite(mesh.triangles).all(axis=(1, 2)))
        mesh = mesh.with_faces(mesh.faces[kept])
        self._mesh = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
        self._reach = _REACH * float(self._mesh.extents.max())
        self._uv = appearance.uv[kept]
        self._tint = appearance.tint[kept]
        self._material = appearance.material[kept]
        linear = np.arange(256, dtype=np.float32) / np.float32(255)
        self._tint_table = linear if appearance.tint_is_linear else _LINEAR
        materials = appearance.materials
        self._table = np.zeros((len(materials), 10), np.float32)
        blocks = [np.zeros((0, 4), np.uint8)]
        start = 0
        for row, item in zip(self._table, materials, strict=True):
            row[:4] = (np.nan,) * 4 if item.colour is None else item.colour
            row[4] = item.cutoff
            if item.texels is not None:
                row[5:7] = item.texels.shape[:2]
                row[7] = start
                row[8:10] = [_WRAPS.index(mode) for mode in item.wrap]
                blocks.append(item.texels.reshape(-1, 4))
                start += len(blocks[-1])
        self._texels = np.concatenate(blocks)
        self.has_holes = any(item.cutoff > 0 for item in materials)

    @cached_property
    def _rays(self) -> RayScene:
        return RayScene(self._mesh)

    @cached_property
    def _field(self) -> DistanceField:
        return DistanceField(self._mesh)

    def at(
        self, points: NDArray[np.floating], normals: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Return linear RGB reflectance and 1 or, in a hole, 0, `[N, 4]`.

        Args:
            points: `[N, 3]` on the watertight mesh.
            normals: `[N, 3]` unit, to the side that is seen.
        """
        distance, face, _ = self._rays.first_hit(points + self._reach * normals, -normals)
        far = np.flatnonzero(distance > 2 * self._reach)
        if len(far):
            _, face[far] = self._field.unsigned(points[far])
        return self._colours_of(points, face)

    def _colours_of(
        self, points: NDArray[np.floating], face: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        return _colours(
            points, face, self._mesh.vertices, self._mesh.faces, self._uv, self._tint,
            self._material, self._table, self._texels, self._tint_table, _LINEAR, CLAY_ALBEDO,
            _MAX_ALBEDO,
        )  # fmt: skip

    def closest_bytes(self, points: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return the sRGB colours `[N, 3]` of the surface closest to points anywhere `[N, 3]`."""
        _, face = self._field.unsigned(points)
        return self._bytes(self._colours_of(points, face))

    def bytes_at(
        self, points: NDArray[np.floating], normals: NDArray[np.floating]
    ) -> NDArray[np.uint8]:
        """Return the sRGB colours `[N, 3]` that a file would hold of points, as of `at`."""
        return self._bytes(self.at(points, normals))

    def _bytes(self, colours: NDArray[np.float32]) -> NDArray[np.uint8]:  # [N, 4] -> [N, 3]
        return np.rint(255 * to_srgb(colours[:, :3] / _MAX_ALBEDO)).astype(np.uint8)


@kernel
def _colours(
    points,
    found,
    vertices,
    faces,
    uv,
    tint,
    material,
    table,
    texels,
    tint_table,
    linear,
    clay,
    brightest,
):
    result = np.empty((len(points), 4), np.float32)
    weight = np.empty(3)
    rgba = np.empty(4)
    for i in range(len(points)):
        f = found[i]
        row = table[material[f]]
        result[i, :] = clay
        result[i, 3] = 1
        if math.isnan(row[0]):
            continue
        _closest_weights(points[i], vertices, faces[f], weight)
        for k in range(4):
            value = 0.0
            for corner in range(3):
                code = tint[f, corner, k]
                value += weight[corner] * (code / 255 if k == 3 else tint_table[code])
            rgba[k] = value * row[k]
        height, width = int(row[5]), int(row[6])
        if height > 0:
            u = v = 0.0
            for corner in range(3):
                u += weight[corner] * uv[f, corner, 0]
                v += weight[corner] * uv[f, corner, 1]
            if not (math.isfinite(u) and math.isfinite(v)):
                continue
            u, v = _wrapped(u, row[8]), _wrapped(v, row[9])
            _multiply_texel(rgba, u, v, texels, row[7:10], height, width, linear)
        for k in range(3):
            result[i, k] = min(rgba[k], 1.0) * brightest
        if rgba[3] < row[4]:
            result[i, 3] = 0
    return result


@kernel
def _wrapped(value, mode):
    """Return where in [0, 1] a texture coordinate lands."""
    if mode == _CLAMP:
        return min(max(value, 0.0), 1.0)
    if mode == _MIRROR:
        value = value - 2 * math.floor(value / 2)
        return 2 - value if value > 1 else value
    return value - math.floor(value)


@kernel
def _neighbour(index, size, mode):
    """Return the texel beside the edge of a texture, across it only where that repeats."""
    return index % size if mode == 0 else min(max(index, 0), size - 1)


@kernel
def _multiply_texel(rgba, u, v, texels, place, height, width, linear):
    """Multiply by the bilinear colour of a texture at coordinates in [0, 1]; v runs up.

    `place` holds the first texel and the wrap modes.
    """
    x = u * width - 0.5
    y = (1 - v) * height - 0.5
    left, top = math.floor(x), math.floor(y)
    fx, fy = x - left, y - top
    for k in range(4):
        value = 0.0
        for j in range(2):
            row = _neighbour(top + j, height, place[2])
            for i in range(2):
                texel = int(place[0]) + row * width + _neighbour(left + i, width, place[1])
                code = texels[texel, k]
                part = (fy if j else 1 - fy) * (fx if i else 1 - fx)
                value += part * (code / 255 if k == 3 else linear[code])
        rgba[k] *= value


@kernel
def _closest_weights(p, vertices, corners, weight):
    """Write the barycentric weights of the point of a triangle near `p`.

    The projection onto the plane, with negative weights cut off: exact inside, and within the
    triangle everywhere.
    """
    a, b, c = vertices[corners[0]], vertices[corners[1]], vertices[corners[2]]
    uu = uv = vv = wu = wv = 0.0
    for x in range(3):
        u, v, w = b[x] - a[x], c[x] - a[x], p[x] - a[x]
        uu += u * u
        uv += u * v
        vv += v * v
        wu += w * u
        wv += w * v
    area = uu * vv - uv * uv
    if area > 1e-12 * uu * vv:
        weight[1] = max((vv * wu - uv * wv) / area, 0.0)
        weight[2] = max((uu * wv - uv * wu) / area, 0.0)
    else:
        weight[1] = weight[2] = 1.0 / 3
    weight[0] = max(1 - weight[1] - weight[2], 0.0)
    total = weight[0] + weight[1] + weight[2]
    for k in range(3):
        weight[k] /= total
