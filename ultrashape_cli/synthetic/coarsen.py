"""A coarse version of a mesh, made on purpose: what `refine` is trained and measured on."""

from __future__ import annotations

import trimesh

from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.watertight.remesh import remesh

COARSE_RESOLUTION = 32
COARSE_SMOOTHING = 5


def coarsen(
    mesh: Mesh, resolution: int = COARSE_RESOLUTION, smoothing: int = COARSE_SMOOTHING
) -> Mesh:
    """Returns the mesh without its detail: remeshed on few cells, then smoothed. Deterministic.

    Smoothing shrinks, so the result is scaled back to the longest side and centre it had: a coarse
    mesh from elsewhere fills its box too, and `refine` fits that box to the cube.

    Args:
        mesh: Any mesh that encloses volume.
        resolution: Cells along the longest side.
        smoothing: Laplacian iterations.
    """
    rough, _ = remesh(weld(mesh), resolution)
    smooth = trimesh.Trimesh(rough.vertices, rough.faces, process=False)
    trimesh.smoothing.filter_laplacian(smooth, iterations=smoothing)
    found = Mesh.from_arrays(smooth.vertices, smooth.faces)
    before, after = fit_frame(mesh), fit_frame(found)
    return Mesh(before.to_source(after.to_normalised(found.vertices)), found.faces)
