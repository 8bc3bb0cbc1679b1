"""What trimesh reads of a file, its parts placed by their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh

from ultrashape_cli.geometry.mesh import Mesh

EXPORT_HINT = "export the mesh again, for example as binary PLY or GLB"


class FolderResolver(trimesh.resolvers.FilePathResolver):
    """Gives a loader the files it names, but none outside the folder of the mesh."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._folder = path.resolve().parent

    def get(self, name: str) -> Any:
        """Return the bytes of a file; ValueError if it lies outside the folder."""
        target = (self._folder / str(name)).resolve()
        if not target.exists():
            # GLTF percent-encodes its URIs.
            target = (self._folder / unquote(str(name))).resolve()
        if not target.is_relative_to(self._folder):
            raise ValueError(f"refers to {name}, outside its own folder")
        return target.read_bytes()


def read_scene(path: Path, suffix: str) -> Mesh:
    """Return all parts of a file as one mesh; without faces where it has none."""
    options: dict[str, Any] = {"skip_materials": True} if suffix == ".obj" else {}
    with path.open("rb") as file:
        scene = trimesh.load_scene(
            file, file_type=suffix[1:], resolver=FolderResolver(path), process=False, **options
        )
    vertices, faces, offset = [], [], 0
    for name in sorted(scene.graph.nodes_geometry):
        transform, geometry_name = scene.graph[name]
        geometry = scene.geometry[geometry_name]
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        part = np.asarray(geometry.vertices, np.float64)
        triangles = np.asarray(geometry.faces, np.int64)
        if not np.array_equal(transform, np.eye(4)):
            part = part @ transform[:3, :3].T + transform[:3, 3]
            if np.linalg.det(transform[:3, :3]) < 0:
                triangles = triangles[:, ::-1]
        vertices.append(part)
        faces.append(triangles + offset)
        offset += len(part)
    if not vertices:
        return Mesh.from_arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    return Mesh.from_arrays(np.concatenate(vertices), np.concatenate(faces))
