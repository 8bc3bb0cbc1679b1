"""Measures of one asset that tell a sculpt from a fragment, a sheet, a primitive or a twin.

Lengths are parts of the longest side of the box unless named otherwise. What is good or bad is
not decided here: that is the filter's part (`filters.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import boundary_edges, topology
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.preparation.twins import descriptor, encode_descriptor
from ultrashape_cli.watertight.caps import boundary_loops

# Samples of the primitive fits, and the distance within which a sample counts as explained.
_FIT_SAMPLES = 4096
_FIT_DISTANCE = 0.01
# Cosine above which two directions count as the same, about 8 degrees.
_SAME_DIRECTION = 0.99
# Share of the box outside a solid that fills it, against division by zero.
_FULL = 1e-3
_MOST_PLANES = 6
_PLANE_CANDIDATES = 48


def measure_source(mesh: Mesh) -> dict[str, Any]:
    """Returns the measures that are lost when a source mesh is closed and normalised."""
    welded = weld(mesh)
    sides = np.sort(mesh.extents)
    return {
        "boundary_loops": len(boundary_loops(boundary_edges(welded.faces))),
        "source_size": float(sides[2]),
        "source_flatness": float(sides[0] / sides[2]),
    }


def measure_surface(mesh: Mesh, seed: int) -> dict[str, Any]:
    """Returns the measures of a watertight mesh.

    Args:
        mesh: Watertight, in any frame.
        seed: Of the random samples.
    """
    state = topology(mesh)
    size = float(mesh.extents.max())
    area = float(mesh.area_faces.sum())
    box = float(np.prod(mesh.extents))
    rng = np.random.default_rng(seed)
    points, normals, _ = sample_faces(mesh, _FIT_SAMPLES, rng)
    return {
        "components": state.components,
        "genus": state.genus,
        "interior_ratio": state.volume / max(box - state.volume, _FULL * box),
        "wall_thickness": 2 * state.volume / area / size,
        "flatness": _flatness(points),
        "primitive_share": primitive_share(points / size, normals, rng),
        "detail": detail(mesh),
        "descriptor": encode_descriptor(descriptor(mesh, rng)),
    }


def detail(mesh: Mesh) -> float:
    """Returns the integral of the absolute mean curvature, over that of a sphere of equal area.

    1 for a sphere, 1.085 for a cube, above 5 for a figurine with engraved patterns. Half the sum
    of edge length times dihedral angle is the integral of the mean curvature of a polyhedron
    (Steiner's formula).
    """
    edges = np.stack([mesh.faces, np.roll(mesh.faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    low, high = edges.min(axis=1), edges.max(axis=1)
    order = np.argsort(low * len(mesh.vertices) + high, kind="stable")
    # Each edge of a watertight mesh has an even number of faces: neighbours in this order.
    first, second = order[0::2], order[1::2]
    normals = mesh.face_normals
    one, two = normals[first // 3], normals[second // 3]
    # atan2 keeps the digits of small angles, which arccos loses.
    angle = np.arctan2(np.linalg.norm(np.cross(one, two), axis=1), np.einsum("ij,ij->i", one, two))
    ends = mesh.vertices[edges[first]]
    length = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)
    return float((angle * length).sum() / 2 / np.sqrt(4 * np.pi * mesh.area_faces.sum()))


def primitive_share(
    points: NDArray[np.float64],  # [N, 3], area-uniform, longest side 1
    normals: NDArray[np.float64],  # [N, 3]
    rng: np.random.Generator,
) -> float:
    """Returns the share of a surface that one primitive explains.

    Primitives are a polyhedron of up to six planes, a sphere, and a capped cylinder or cone, in
    any pose. 1 for those; a torus and other shapes of few curves are not recognised.
    """
    shares = [_planar_share(points, normals, rng), _sphere_share(points, normals)]
    centred = points - points.mean(axis=0)
    for vectors in (centred, normals):
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        shares += [_cone_share(centred, normals, axis) for axis in axes.T]
    return max(shares)


def _flatness(points: NDArray[np.float64]) -> float:
    """Returns the smallest over the largest spread along the principal axes: 0 for a sheet."""
    spread = np.sqrt(np.clip(np.linalg.eigvalsh(np.cov(points.T)), 0, None))
    return float(spread[0] / spread[2])


def _planar_share(
    points: NDArray[np.float64], normals: NDArray[np.float64], rng: np.random.Generator
) -> float:
    left = np.ones(len(points), bool)
    for _ in range(_MOST_PLANES):
        rest = np.flatnonzero(left)
        if len(rest) == 0:
            break
        tries = rng.choice(rest, _PLANE_CANDIDATES)
        on = _on_plane(points[rest], normals[rest], points[tries], normals[tries])
        best = on[:, on.sum(axis=0).argmax()]
        left[rest[best]] = False
    return float(1 - left.mean())


def _on_plane(
    points: NDArray[np.float64],  # [N, 3]
    normals: NDArray[np.float64],
    at: NDArray[np.float64],  # [P, 3], a point and a normal of each plane
    across: NDArray[np.float64],
) -> NDArray[np.bool_]:  # [N, P]
    offset = points @ across.T - np.einsum("ij,ij->i", at, across)
    return (np.abs(offset) < _FIT_DISTANCE) & (normals @ across.T > _SAME_DIRECTION)


def _sphere_share(points: NDArray[np.float64], normals: NDArray[np.float64]) -> float:
    # |x|^2 = 2 c.x + (r^2 - |c|^2) is linear in the centre c and the last term.
    design = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(design, (points**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    radius = np.sqrt(max(solution[3] + centre @ centre, 0.0))
    arm = points - centre
    distance = np.maximum(np.linalg.norm(arm, axis=1), 1e-12)
    cosine = np.einsum("ij,ij->i", arm, normals) / distance
    return float(((np.abs(distance - radius) < _FIT_DISTANCE) & (cosine > _SAME_DIRECTION)).mean())


def _cone_share(
    points: NDArray[np.float64],  # [N, 3], centred
    normals: NDArray[np.float64],
    axis: NDArray[np.float64],
) -> float:
    """Returns the share on the caps or the wall of a cone or cylinder around an axis."""
    height = points @ axis
    arm = points - height[:, None] * axis
    radius = np.linalg.norm(arm, axis=1)
    along = normals @ axis
    low, high = height.min(), height.max()
    cap = (along > _SAME_DIRECTION) & (height > high - _FIT_DISTANCE)
    cap |= (along < -_SAME_DIRECTION) & (height < low + _FIT_DISTANCE)
    side = np.abs(along) < _SAME_DIRECTION
    if side.sum() < 3:
        return float(cap.mean())
    slope, start = np.polyfit(height[side], radius[side], 1)
    out = np.sqrt(np.clip(1 - along**2, 1e-12, None))
    radial = np.einsum("ij,ij->i", arm, normals) / np.maximum(radius, 1e-12) / out
    wall = (np.abs(radius - start - slope * height) < _FIT_DISTANCE) & (radial > _SAME_DIRECTION)
    return float((cap | (side & wall)).mean())
