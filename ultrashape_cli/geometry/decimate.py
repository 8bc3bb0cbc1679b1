"""Fewer faces by quadric edge collapse: open3d is faster, pymeshlab keeps the topology."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.check import Topology, topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import load_optional, missing_reason
from ultrashape_cli.geometry.surface import sample_faces

_ERROR_SAMPLES = 20_000


class Decimated(NamedTuple):
    """A closed mesh with fewer faces."""

    mesh: Mesh
    error: float
    """Distance it moved at most, measured, as part of the box diagonal."""
    topology: Topology | None
    """Of the mesh, where it is another one."""


def decimate(mesh: Mesh, num_faces: int, *, watertight: bool | None = None) -> Mesh:
    """Returns the mesh with at most about `num_faces` faces; a watertight one stays watertight.

    Args:
        mesh: Any triangles.
        num_faces: Faces asked for.
        watertight: Whether the mesh is, where that is known.

    Raises:
        DependencyError: Neither open3d nor pymeshlab can load.
    """
    if len(mesh.faces) <= num_faces:
        return mesh
    if watertight is None:
        watertight = topology(mesh).watertight
    return _simplify(mesh, num_faces, watertight)[0]


def decimate_within(
    mesh: Mesh, num_faces: int, max_error: float, field: DistanceField | None = None
) -> Decimated:
    """Returns a closed mesh with fewer faces that moved no farther than a bound.

    Twice as many faces are allowed until the error is within its bound, or nothing is left to
    reduce.

    Args:
        mesh: A watertight mesh.
        num_faces: Faces asked for.
        max_error: Bound of the distance, at samples of both surfaces, as part of the box diagonal.
        field: Of the mesh, where it is there already.

    Raises:
        DependencyError: Neither open3d nor pymeshlab can load.
    """
    extent = float(np.linalg.norm(mesh.extents))
    field = field or DistanceField(mesh, winding_exists=True)
    points, _, _ = sample_faces(mesh, _ERROR_SAMPLES, np.random.default_rng(0))
    while num_faces < len(mesh.faces):
        fewer, state = _simplify(mesh, num_faces, watertight=True)
        state = state or topology(fewer)
        if state.solid:
            there, _, _ = sample_faces(fewer, _ERROR_SAMPLES, np.random.default_rng(1))
            forth = DistanceField(fewer, winding_exists=True).unsigned(points)[0].max()
            error = max(float(forth), float(field.unsigned(there)[0].max())) / extent
            if error <= max_error:
                return Decimated(fewer, error, state)
        num_faces *= 2
    return Decimated(mesh, 0.0, None)


def _simplify(mesh: Mesh, num_faces: int, watertight: bool) -> tuple[Mesh, Topology | None]:
    """Returns fewer faces, and their topology where it was looked at."""
    if missing_reason("open3d") is None:
        fewer = _with_open3d(mesh, num_faces)
        state = topology(fewer) if watertight else None
        if state is None or state.watertight:
            return fewer, state
    elif missing_reason("pymeshlab") is not None:
        raise DependencyError(
            "reducing faces needs open3d or pymeshlab, and neither can load",
            hint=f"{missing_reason('pymeshlab')}",
        )
    return _with_pymeshlab(mesh, num_faces), None


def _with_open3d(mesh: Mesh, num_faces: int) -> Mesh:
    open3d = load_optional("open3d")
    dense = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices),
        open3d.utility.Vector3iVector(mesh.faces.astype(np.int32)),
    )
    fewer = dense.simplify_quadric_decimation(num_faces)
    return Mesh.from_arrays(np.asarray(fewer.vertices), np.asarray(fewer.triangles))


def _with_pymeshlab(mesh: Mesh, num_faces: int) -> Mesh:
    pymeshlab = load_optional("pymeshlab")
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.add_mesh(pymeshlab.Mesh(mesh.vertices, mesh.faces))
    meshes.meshing_decimation_quadric_edge_collapse(
        targetfacenum=num_faces, preservenormal=True, preservetopology=True, qualitythr=1.0
    )
    current = meshes.current_mesh()
    return Mesh.from_arrays(current.vertex_matrix(), current.face_matrix())
