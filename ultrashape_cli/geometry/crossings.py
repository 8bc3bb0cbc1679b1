"""Faces of a mesh that cross others of it."""

from __future__ import annotations

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import load_optional, missing_reason


def crossing_share(mesh: Mesh) -> float | None:
    """Returns the share of faces that cross another, 0 to 1; None where pymeshlab cannot load."""
    if missing_reason("pymeshlab") is not None:
        return None
    if len(mesh.faces) == 0:
        return 0.0
    pymeshlab = load_optional("pymeshlab")
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.add_mesh(pymeshlab.Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces)))
    meshes.compute_selection_by_self_intersections_per_face()
    return float(meshes.current_mesh().selected_face_number() / len(mesh.faces))
