"""Ways to make test meshes."""

import numpy as np
import trimesh

from ultrashape_cli.geometry.mesh import Mesh


def as_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh.from_arrays(shape.vertices, shape.faces)


def joined(*meshes: Mesh) -> Mesh:
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]
    return Mesh.from_arrays(vertices, np.concatenate(faces))


def moved(mesh: Mesh, scale: float = 1.0, shift: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    return Mesh(mesh.vertices * scale + np.array(shift), mesh.faces)
