"""Vertices of one mesh in places of their own, also for those who read single precision.

Two sheets of a closed surface may touch. Written as they are, their vertices share a place there,
and a loader that merges equal positions joins the sheets: edges of four faces, no solid any more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rows import first_equal_rows

_STEP = 8.0
"""Distance that vertices are moved apart, in the spacing of single precision at the largest
coordinate: a millionth of it."""
_ROUNDS = 8
_SMALLEST_EXTENT = 1e-3
"""Extent of a mesh, as part of its largest coordinate, below which single precision cannot tell
its vertices apart anyway."""


def shared_places(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the vertices `[N]` whose place an earlier one has, in single precision.

    Args:
        vertices: `[V, 3]`; the coarsest spacing of their coordinates counts for all of them.
    """
    first = _first_at_place(vertices)
    return np.flatnonzero(first != np.arange(len(first)))


def in_own_places(mesh: Mesh) -> Mesh:
    """Returns the mesh with vertices that share a place moved apart, inward, by a millionth.

    The first of them stays. A mesh without any is returned as it is, and so is one that is too far
    from the origin for single precision.
    """
    if mesh.extents.max() < _SMALLEST_EXTENT * np.abs(mesh.vertices).max(initial=0.0):
        return mesh
    spacing = _spacing(mesh.vertices)
    for _ in range(_ROUNDS):
        first = _first_at_place(mesh.vertices)
        extra = np.flatnonzero(first != np.arange(len(first)))
        if len(extra) == 0:
            break
        # Several in one place go to places one step apart.
        extra = extra[np.argsort(first[extra], kind="stable")]
        place = first[extra]
        rank = 1 + np.arange(len(extra)) - np.searchsorted(place, place)
        inward = -Mesh(mesh.vertices / spacing, mesh.faces).vertex_normals[extra]
        inward[~inward.any(axis=1)] = (1.0, 0.0, 0.0)
        vertices = mesh.vertices.copy()
        vertices[extra] += (_STEP * spacing * rank)[:, None] * inward
        mesh = Mesh(vertices, mesh.faces)
    return mesh


def _first_at_place(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the first vertex `[V]` in the place of each one."""
    # Scaled by a power of two, which rounds alike and cannot overflow.
    spacing = _spacing(vertices)
    written = (vertices / (spacing * 2.0**24)).astype(np.float32).astype(np.float64)
    return np.asarray(first_equal_rows(np.rint(written * 2.0**24).astype(np.int64)))


def _spacing(vertices: NDArray[np.float64]) -> float:
    """Returns the distance of neighbouring numbers of single precision at the largest one."""
    _, exponent = np.frexp(np.abs(vertices).max(initial=0.0))
    return float(np.ldexp(1.0, int(exponent) - 24))
