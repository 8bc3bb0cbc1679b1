"""The steps after a refinement, in their order: faces, texture coordinates, normal map."""

from __future__ import annotations

import time
from typing import Any

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.finishing.bake import bake_normals
from ultrashape_cli.finishing.surface import Finished, to_quads, unwrap
from ultrashape_cli.finishing.write import quad_share
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh


def finish(reduced: Mesh, full: Mesh, config: RefineConfig) -> tuple[Finished, dict[str, Any]]:
    """Returns the surface that the settings ask for, and its figures.

    Args:
        reduced: Triangles, as many as `refine.faces`.
        full: Before they were reduced.
        config: For `topology`, `uv`, `bake`, `bake_size` and `faces`.

    Raises:
        MeshError: A library failed at this mesh.
        DependencyError: One does not load.
    """
    seconds: dict[str, float] = {}

    def lap(name: str, started: float) -> float:
        seconds[name] = round(time.perf_counter() - started, 3)
        return time.perf_counter()

    now = time.perf_counter()
    surface = Finished(reduced)
    if config.topology == "quads":
        surface = to_quads(full, config.faces)
        now = lap("quads", now)
    if config.uv or config.bake != "none":
        unwrap(surface, config.bake_size)
        now = lap("uv", now)
    if config.bake == "normal":
        bake_normals(surface, full, config.bake_size)
        lap("bake", now)
    state = topology(surface.mesh)
    figures: dict[str, Any] = {
        "faces": len(surface.mesh.faces) if surface.quads is None else len(surface.quads),
        "quad_share": round(quad_share(surface), 4),
        "open_edges": state.boundary_edges,
        "branching_edges": state.nonmanifold_edges,
        "seconds": seconds,
    }
    if surface.uv is not None:
        figures |= {"charts": surface.charts, "texture_used": round(surface.used, 4)}
    if surface.normal_map is not None:
        figures["coverage"] = round(surface.coverage, 4)
    return surface, figures
