"""The detail of a full surface in a normal map of a reduced one.

Tangent space as of glTF 2.0: red along u, green along v (up in the picture), blue along the normal;
normal and tangent are interpolated over a triangle, and v is sign x (normal x tangent).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.finishing.surface import Finished, tangents
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces

PADDING = 8
"""Texels that charts are continued by beyond their border."""
_SAMPLES = 20_000
_PIECE = 1 << 20
"""Texels asked at once."""


def bake_normals(surface: Finished, full: Mesh, size: int) -> None:
    """Adds a normal map of so many texels along a side.

    Args:
        surface: Reduced, with texture coordinates.
        full: The surface it was reduced from, in the same frame.
        size: Texels.
    """
    assert surface.uv is not None
    assert surface.source is not None
    assert surface.corners is not None
    pixels = np.column_stack([surface.uv[:, 0], 1 - surface.uv[:, 1]]) * size
    face, weight = _rasterised(pixels, surface.corners, size)
    texels = np.flatnonzero(face >= 0)
    vertices = surface.mesh.vertices[surface.source]
    normals = surface.mesh.vertex_normals[surface.source]
    tangent = tangents(surface)
    scene, full_normals = RayScene(full), full.vertex_normals
    reach = _reach(surface.mesh, full)
    packed = np.full((size * size, 3), (128, 128, 255), np.uint8)
    hits = 0
    for start in range(0, len(texels), _PIECE):
        part = texels[start : start + _PIECE]
        corners = surface.corners[face[part]]
        share = weight[part][..., None]

        def mixed(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return (values[corners] * share).sum(1)  # noqa: B023  used in this turn alone

        point, normal = mixed(vertices), unit(mixed(normals))
        seen, found = _seen(scene, full, full_normals, point, normal, reach)
        along = mixed(tangent[:, :3])
        along = unit(along - normal * (along * normal).sum(1, keepdims=True))
        across = np.cross(normal, along) * np.sign(tangent[corners[:, 0], 3])[:, None]
        local = np.stack([(seen * axis).sum(1) for axis in (along, across, normal)], axis=1)
        # What faces away from the reduced surface cannot be said in its map.
        local[:, 2] = np.maximum(local[:, 2], 0.05)
        packed[part[found]] = np.rint((unit(local[found]) + 1) * 127.5).astype(np.uint8)
        hits += int(found.sum())
    known = face.reshape(size, size) >= 0
    surface.normal_map = _padded(packed.reshape(size, size, 3), known)
    surface.coverage = hits / max(len(texels), 1)


def _reach(reduced: Mesh, full: Mesh) -> float:
    """Returns how far from the reduced surface the full one is looked for."""
    points = sample_faces(reduced, _SAMPLES, np.random.default_rng(0))[0]
    off, _ = DistanceField(full, winding_exists=True).unsigned(points)
    return 2 * float(np.quantile(off, 0.999)) + 1e-4 * float(reduced.extents.max())


def _seen(
    scene: RayScene,
    full: Mesh,
    full_normals: NDArray[np.float64],
    point: NDArray[np.float64],
    normal: NDArray[np.float64],
    reach: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns the normals of the full surface that points see along theirs, and which see one."""
    distance, face, uv = scene.first_hit(point + reach * normal, -normal)
    found = (face >= 0) & (distance <= 2 * reach)
    corners = full.faces[np.where(found, face, 0)]
    weight = np.column_stack([1 - uv.sum(1), uv])[..., None]
    seen = unit((full_normals[corners] * weight).sum(1))
    found &= (seen * normal).sum(1) > 0
    return seen, found


def _padded(
    image: NDArray[np.uint8], known: NDArray[np.bool_]
) -> NDArray[np.uint8]:  # [S, S, 3], [S, S]
    if not known.any():
        return image
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    near = distance <= PADDING
    image[near] = image[nearest[0][near], nearest[1][near]]
    return image


@kernel
def _rasterised(pixels, corners, size):
    """Return the triangle of each texel's centre, -1 without, and its weights; rows first."""
    face = np.full(size * size, -1, np.int64)
    weight = np.zeros((size * size, 3))
    for f in range(len(corners)):
        a, b, c = pixels[corners[f, 0]], pixels[corners[f, 1]], pixels[corners[f, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if area == 0:
            continue
        left = max(int(np.floor(min(a[0], b[0], c[0]) - 0.5)), 0)
        right = min(int(np.ceil(max(a[0], b[0], c[0]) - 0.5)), size - 1)
        top = max(int(np.floor(min(a[1], b[1], c[1]) - 0.5)), 0)
        bottom = min(int(np.ceil(max(a[1], b[1], c[1]) - 0.5)), size - 1)
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                u = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
                v = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
                w = 1 - u - v
                if u >= -1e-9 and v >= -1e-9 and w >= -1e-9:
                    texel = row * size + column
                    face[texel] = f
                    weight[texel, 0], weight[texel, 1], weight[texel, 2] = u, v, w
    return face, weight
