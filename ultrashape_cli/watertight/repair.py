"""Small repairs by pymeshlab, for meshes that are nearly closed but not manifold."""

from __future__ import annotations

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import load_optional

MAX_HOLE_EDGES = 30


def repair_manifold(mesh: Mesh) -> Mesh:
    """Returns the mesh with duplicates removed, branches split, faces oriented, small holes closed.

    The result still has to be checked: not every mesh can be repaired this way.

    Raises:
        DependencyError: pymeshlab cannot load.
    """
    pymeshlab = load_optional("pymeshlab")
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.add_mesh(pymeshlab.Mesh(mesh.vertices, mesh.faces))
    meshes.meshing_remove_duplicate_vertices()
    meshes.meshing_remove_duplicate_faces()
    meshes.meshing_remove_null_faces()
    meshes.meshing_repair_non_manifold_edges(method="Remove Faces")
    meshes.meshing_repair_non_manifold_vertices()
    try:
        meshes.meshing_re_orient_faces_coherently()
        meshes.meshing_close_holes(maxholesize=MAX_HOLE_EDGES)
    except pymeshlab.PyMeshLabException:
        # A surface that cannot be oriented stays as it is and fails the caller's check.
        return mesh
    current = meshes.current_mesh()
    return Mesh.from_arrays(current.vertex_matrix(), current.face_matrix())
