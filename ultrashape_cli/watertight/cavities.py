"""Cavities of a closed mesh: parts turned inward and enclosed by the others."""

import numpy as np

from ultrashape_cli.geometry.check import part_volumes, vertex_components
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh


def fill_cavities(mesh: Mesh) -> Mesh:
    """Return the mesh without the walls of its cavities; the same object where it has none."""
    label = vertex_components(mesh.faces, len(mesh.vertices))
    part = label[mesh.faces[:, 0]]
    inward = np.flatnonzero(part_volumes(mesh.vertices, mesh.faces, label) < 0)
    if len(inward) == 0:
        return mesh
    is_wall = np.isin(part, inward)
    if is_wall.all():
        return mesh
    body = mesh.with_faces(mesh.faces[~is_wall])
    # A part turned inward that nothing encloses is a body with its faces reversed.
    enclosed = inward[DistanceField(body, winding_exists=True).contains(mesh.vertices[inward])]
    if len(enclosed) == 0:
        return mesh
    return mesh.with_faces(mesh.faces[~np.isin(part, enclosed)])
