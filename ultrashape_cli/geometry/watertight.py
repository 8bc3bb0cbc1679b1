"""Watertight meshes: keep what is closed, repair what nearly is, remesh the rest."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.caps import cap_holes
from ultrashape_cli.geometry.check import Topology, topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.optional import missing_reason
from ultrashape_cli.geometry.orient import orient_outward
from ultrashape_cli.geometry.remesh import remesh
from ultrashape_cli.geometry.repair import repair_manifold
from ultrashape_cli.geometry.surface import sample_faces

# Surface that may lie inside the solid, as part of the area, before a closed mesh is rebuilt.
MAX_HIDDEN = 0.005
# A mesh with more open or branching edges than this part of its faces is not worth repairing.
MAX_BAD_EDGES = 0.01
# Hidden surface is looked for at samples this far off the surface, relative to the box diagonal.
_HIDDEN_OFFSET = 1e-5
_HIDDEN_SAMPLES = 20_000

Rung = Literal["keep", "repair", "remesh"]
Figures = dict[str, float | int | bool | str]


@dataclass(frozen=True, slots=True)
class Watertight:
    """A closed, edge-manifold, outward mesh and how it came about.

    Attributes:
        mesh: The result, in the frame of the input.
        rung: "keep" leaves the vertices bit-exact, "repair" changes faces only, "remesh" makes a
            new surface.
        measurements: Plain figures for a manifest.
    """

    mesh: Mesh
    rung: Rung
    measurements: Figures


def make_watertight(mesh: Mesh, resolution: int = 512) -> Watertight:
    """Return a watertight version of a mesh, changed as little as possible.

    Args:
        mesh: Any triangles, in any frame.
        resolution: Cells along the longest side if the mesh must be rebuilt.

    Raises:
        MeshError: The mesh is empty, or even the rebuilt one does not close.
    """
    if len(mesh.faces) == 0:
        raise MeshError("cannot close a mesh without faces")
    before = topology(mesh)
    kept = mesh.flipped() if before.volume < 0 else mesh
    figures = _input_figures(before)
    if _is_solid(kept, dataclasses.replace(before, volume=abs(before.volume)), figures):
        return _finish(kept, "keep", figures)
    welded = weld(mesh)
    if len(welded.faces) == 0:
        raise MeshError("all faces of the mesh are degenerate")
    state = topology(welded)
    figures = _input_figures(state)
    if state.boundary_edges + state.nonmanifold_edges <= MAX_BAD_EDGES * len(welded.faces):
        repaired = _repair(welded, state, figures)
        if _is_solid(repaired, topology(repaired), figures):
            return _finish(repaired, "repair", figures)
    rebuilt, more = remesh(welded, resolution)
    figures.update(more)
    # A level set has a winding number of 0 or 1 everywhere.
    figures["hidden_share"] = 0.0
    return _finish(rebuilt, "remesh", figures)


def _repair(mesh: Mesh, state: Topology, figures: Figures) -> Mesh:
    if state.nonmanifold_edges:
        missing = missing_reason("pymeshlab")
        if missing is None:
            mesh = repair_manifold(mesh)
        else:
            figures["missing"] = missing
    return orient_outward(cap_holes(mesh).mesh)


def hidden_share(mesh: Mesh, seed: int = 0) -> float:
    """Return the part of a closed mesh's area that lies inside the solid it bounds."""
    rng = np.random.default_rng(seed)
    points, normals, _ = sample_faces(mesh, _HIDDEN_SAMPLES, rng)
    offset = _HIDDEN_OFFSET * float(np.linalg.norm(mesh.extents))
    return float(DistanceField(mesh).contains(points + offset * normals).mean())


def _input_figures(state: Topology) -> Figures:
    return {
        "input_boundary_edges": state.boundary_edges,
        "input_nonmanifold_edges": state.nonmanifold_edges,
        "input_inconsistent_edges": state.inconsistent_edges,
        "input_components": state.components,
    }


def _is_solid(mesh: Mesh, state: Topology, figures: Figures) -> bool:
    """Return whether a mesh can be used as it is, and record what was hidden."""
    # Volumes at rounding level: a sheet whose two sides coincide.
    flat = 1e-9 * float(np.prod(np.maximum(mesh.extents, 1e-6 * mesh.extents.max())))
    if not state.watertight or state.volume <= flat:
        return False
    share = figures["hidden_share"] = hidden_share(mesh)
    return share <= MAX_HIDDEN


def _finish(mesh: Mesh, rung: Rung, figures: Figures) -> Watertight:
    state = topology(mesh)
    if not state.watertight or state.volume <= 0:
        raise MeshError(
            f"the mesh cannot be closed: {state.boundary_edges} open, "
            f"{state.nonmanifold_edges} branching and {state.inconsistent_edges} inconsistent "
            f"edges, volume {state.volume:g}",
            hint="try another resolution",
        )
    figures |= {
        "faces": len(mesh.faces),
        "components": state.components,
        "volume": state.volume,
        "watertight": True,
    }
    return Watertight(mesh=mesh, rung=rung, measurements=figures)
