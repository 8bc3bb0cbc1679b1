"""A surface as other programs take it: quads or triangles, texture coordinates, a normal map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.finishing.native import run_native
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame

_SIDE = 2.0
"""Longest side of what native code sees, which computes in single precision."""


@dataclass(slots=True)
class Finished:
    """A surface and what lies on it. Legend: F triangles, U corners with a place in the texture."""

    mesh: Mesh
    """Triangles; where there are quads, two of each in a row."""
    quads: NDArray[np.int64] | None = None  # [F / 2, 4]
    source: NDArray[np.int64] | None = None  # [U]
    """Vertex of the mesh of each corner."""
    uv: NDArray[np.float64] | None = None  # [U, 2]
    """In [0, 1], v up."""
    corners: NDArray[np.int64] | None = None  # [F, 3]
    """Corners of each triangle, in the order of the mesh."""
    normal_map: NDArray[np.uint8] | None = None  # [S, S, 3]
    charts: int = 0
    used: float = 0.0
    """Share of the texture that charts cover."""
    coverage: float = 0.0
    """Share of the charts' texels that found the full surface."""


def to_quads(mesh: Mesh, count: int) -> Finished:
    """Returns a mesh of quads alone that follow the surface, about so many.

    By pynanoinstantmeshes (Jakob et al., "Instant Field-Aligned Meshes", 2015). It promises no
    closed surface: thin and complicated places may get holes.

    Args:
        mesh: A closed mesh in any frame.
        count: Quads.

    Raises:
        MeshError: It failed.
        DependencyError: The package does not load.
    """
    frame = fit_frame(mesh, _SIDE)
    given = {"vertices": frame.to_normalised(mesh.vertices), "faces": mesh.faces}
    found = run_native("quads", {**given, "count": np.asarray(count)})
    quads, vertices = found["faces"], found["vertices"]
    if quads.ndim != 2 or quads.shape[1] != 4 or len(quads) == 0:
        raise MeshError("pynanoinstantmeshes made no quads of this mesh")
    if not np.isfinite(vertices).all() or quads.min() < 0 or quads.max() >= len(vertices):
        raise MeshError("pynanoinstantmeshes made faces that cannot be")
    # Two in a row of each, so that both orders are known from one another.
    faces = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    return Finished(Mesh(frame.to_source(vertices), faces), quads)


def unwrap(surface: Finished, size: int) -> None:
    """Adds texture coordinates, by xatlas.

    Args:
        surface: Without them.
        size: Pixels along a side of the texture they are packed for.

    Raises:
        MeshError: It failed.
        DependencyError: The package does not load.
    """
    mesh = surface.mesh
    given = {"vertices": fit_frame(mesh, _SIDE).to_normalised(mesh.vertices), "faces": mesh.faces}
    found = run_native("unwrap", {**given, "size": np.asarray(size)})
    if found["faces"].shape != mesh.faces.shape or not np.isfinite(found["uv"]).all():
        raise MeshError("xatlas made texture coordinates that cannot be")
    if not np.array_equal(found["source"][found["faces"]], mesh.faces):
        raise MeshError("xatlas changed the order of the faces")
    surface.source, surface.corners = found["source"], found["faces"]
    surface.uv = found["uv"].clip(0, 1)
    surface.charts, surface.used = int(found["charts"]), float(found["used"])


def tangents(surface: Finished) -> NDArray[np.float64]:  # [U, 4]
    """Returns the direction of u at each corner, across its normal, and the side of v, 1 or -1.

    What glTF calls TANGENT: the direction of v is the sign times normal x tangent.
    """
    assert surface.uv is not None
    assert surface.source is not None
    assert surface.corners is not None
    triangles = surface.mesh.triangles
    e1, e2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    places = surface.uv[surface.corners]
    d1, d2 = places[:, 1] - places[:, 0], places[:, 2] - places[:, 0]
    area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    side = np.where(area >= 0, 1.0, -1.0)[:, None]
    # Times the area in the texture, so that small triangles count little.
    along_u = side * (e1 * d2[:, 1:] - e2 * d1[:, 1:])
    along_v = side * (e2 * d1[:, :1] - e1 * d2[:, :1])
    sums = np.zeros((2, len(surface.uv), 3))
    for corner in range(3):
        np.add.at(sums[0], surface.corners[:, corner], along_u)
        np.add.at(sums[1], surface.corners[:, corner], along_v)
    normal = surface.mesh.vertex_normals[surface.source]
    flat = sums[0] - normal * (sums[0] * normal).sum(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # Where no direction is left any across the normal will do.
    spare = np.cross(normal, np.where(np.abs(normal[:, :1]) < 0.9, (1.0, 0, 0), (0, 1.0, 0)))
    spare /= np.linalg.norm(spare, axis=1, keepdims=True).clip(1e-12)
    tangent = np.where(length > 1e-12, flat / length.clip(1e-12), spare)
    sign = np.where((np.cross(normal, tangent) * sums[1]).sum(1) < 0, -1.0, 1.0)
    return np.column_stack([tangent, sign])
