"""A coarse version of a mesh, made on purpose: what `refine` is trained and measured on."""

from __future__ import annotations

import trimesh

from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.remesh import remesh


def coarsen(mesh: Mesh, resolution: int = 32, smoothing: int = 5) -> Mesh:
    """Returns the mesh without its detail: remeshed on few cells, then smoothed. Deterministic.

    Args:
        mesh: Any mesh that encloses volume.
        resolution: Cells along the longest side.
        smoothing: Laplacian iterations.
    """
    rough, _ = remesh(weld(mesh), resolution)
    smooth = trimesh.Trimesh(rough.vertices, rough.faces, process=False)
    trimesh.smoothing.filter_laplacian(smooth, iterations=smoothing)
    return Mesh.from_arrays(smooth.vertices, smooth.faces)
