"""Watertight meshes: keep what is closed, repair what nearly is, remesh the rest."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.check import Topology, topology
from ultrashape_cli.geometry.decimate import decimate_within
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.optional import missing_reason
from ultrashape_cli.geometry.places import in_own_places, shared_places
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.watertight.caps import cap_holes
from ultrashape_cli.watertight.cavities import fill_cavities
from ultrashape_cli.watertight.fidelity import (
    Figures,
    Gates,
    fidelity,
    fidelity_of_rebuilt,
    unchanged,
)
from ultrashape_cli.watertight.orient import orient_outward
from ultrashape_cli.watertight.remesh import MAX_MEMORY_BYTES, Holes, rebuild
from ultrashape_cli.watertight.repair import repair_manifold

# Surface that may lie inside the solid, as part of the area, before a closed mesh is rebuilt.
MAX_HIDDEN = 0.005
# A mesh with more open or branching edges than this part of its faces is not worth repairing.
MAX_BAD_EDGES = 0.01
# A repair moves no vertex, so only what it removes or covers can be off. A remesh shifts sheets by
# half a voxel, bevels edges and may fill a pocket between close walls: the worst of 23 scanned and
# modelled meshes has mean 0.30, p99.9 1.8, 0.03 % lost and consistency 0.95 at 256 cells, and p99.9
# 11.9 and consistency 0.83 at 64. Unrelated normals have 0.5.
REPAIR_GATES = Gates(
    distance_mean_voxels=0.05,
    distance_p999_voxels=1.0,
    lost_share=0.001,
    normal_consistency=0.99,
)
REMESH_GATES = Gates(
    distance_mean_voxels=1.0,
    distance_p999_voxels=12.0,
    lost_share=0.02,
    normal_consistency=0.75,
)
# Hidden surface is looked for at samples this far off the surface, relative to the box diagonal.
_HIDDEN_OFFSET = 1e-5
_HIDDEN_SAMPLES = 20_000

Rung = Literal["keep", "repair", "remesh"]


@dataclass(frozen=True, slots=True)
class Watertight:
    """A closed, manifold, outward mesh and how it came about; no two vertices share a place.

    Attributes:
        mesh: The result, in the frame of the input.
        rung: "keep" leaves the vertices bit-exact, "repair" changes faces and moves vertices that
            share a place a millionth apart, "remesh" makes a new surface.
        measurements: Plain figures for a manifest.
    """

    mesh: Mesh
    rung: Rung
    measurements: Figures


def make_watertight(
    mesh: Mesh,
    resolution: int = 512,
    *,
    keep_cavities: bool = False,
    max_faces: int = 0,
    max_error: float = 1e-3,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
    first_rung: Rung = "keep",
) -> Watertight:
    """Return a watertight version of a mesh, changed as little as possible.

    Args:
        mesh: Any triangles, in any frame.
        resolution: Cells along the longest side if the mesh must be rebuilt.
        keep_cavities: Leave enclosed cavities empty instead of filling them.
        max_faces: Reduce the result to about this many faces; 0 leaves it as it is.
        max_error: Distance by which the reduction may move the surface, as part of the diagonal of
            the box. More faces than asked for are kept where it would be exceeded.
        max_memory_bytes: Refuse to rebuild with more.
        first_rung: Skip the rungs before this one.

    Raises:
        MeshError: The mesh is empty, or even the rebuilt one fails its checks.
    """
    if len(mesh.faces) == 0:
        raise MeshError("cannot close a mesh without faces")
    result: Watertight | None = None
    field: DistanceField | None = None
    figures: Figures = {}
    if first_rung != "remesh":
        may_keep = first_rung == "keep"
        result, field, figures = _without_remesh(mesh, resolution, keep_cavities, may_keep)
    if result is None:
        welded = weld(mesh)
        if len(welded.faces) == 0:
            raise MeshError("all faces of the mesh are degenerate")
        result = _remesh(welded, resolution, keep_cavities, max_memory_bytes, figures)
    if 0 < max_faces < len(result.mesh.faces):
        result = _decimate(result, max_faces, max_error, field)
    return result


def _without_remesh(
    mesh: Mesh, resolution: int, keep_cavities: bool, may_keep: bool
) -> tuple[Watertight | None, DistanceField | None, Figures]:
    """Return the mesh kept or repaired, its distance field, and the figures.

    None and None where neither gives a solid.
    """
    before = topology(mesh)
    figures = _input_figures(before)
    rung: Rung = "keep"
    if may_keep and len(shared_places(mesh.vertices)):
        # Sheets that touch are moved apart; of copies of a face only one is left.
        may_keep, rung = len(weld(mesh).faces) == len(mesh.faces), "repair"
    kept: Mesh | None = None
    full: Mesh | None = None
    if may_keep:
        kept = mesh.flipped() if before.volume < 0 else mesh
        state = dataclasses.replace(before, volume=abs(before.volume))
        full = kept if keep_cavities or state.components == 1 else fill_cavities(kept)
        if full is kept:
            field = _is_solid(kept, state, figures)
            if field is not None:
                return _accept(kept, rung, state, figures | unchanged(kept)), field, figures
    welded = weld(mesh)
    if len(welded.faces) == 0:
        raise MeshError("all faces of the mesh are degenerate")
    same = welded.vertices.shape == mesh.vertices.shape and welded.faces.shape == mesh.faces.shape
    state = before if same else topology(welded)
    whole = same and state.watertight and state.nonmanifold_vertices == 0
    if whole and full is not None and full is kept:
        # There is nothing to repair, and the mesh as it is was refused above.
        return None, None, figures
    figures = _input_figures(state)
    if state.boundary_edges + state.nonmanifold_edges > MAX_BAD_EDGES * len(welded.faces):
        return None, None, figures
    if whole and full is not None:
        repaired = full
    else:
        repaired = _repair(welded, state, figures)
        if not keep_cavities:
            repaired = fill_cavities(repaired)
    state = topology(repaired)
    field = _is_solid(repaired, state, figures)
    if field is None:
        return None, None, figures
    cell = float(welded.extents.max()) / resolution
    figures |= fidelity(welded, field, repaired, cell)
    broken = REPAIR_GATES.broken_by(figures)
    if broken:
        figures["repair_rejected"] = broken
        return None, None, figures
    return _accept(repaired, "repair", state, figures), field, figures


def _remesh(
    welded: Mesh, resolution: int, keep_cavities: bool, max_memory_bytes: int, figures: Figures
) -> Watertight:
    ways: list[Holes] = ["lids", "strips", "none"]
    for way in ways:
        rebuilt = rebuild(welded, resolution, max_memory_bytes, keep_cavities, way)
        # A level set has a winding of 0 or 1 everywhere: there is no hidden share to measure.
        found = figures | rebuilt.figures | fidelity_of_rebuilt(welded, rebuilt)
        # What was plain to see and lies under a lid now was hollow.
        if not found["caps"] or float(found.get("lost_share", 0.0)) <= REMESH_GATES.lost_share:
            break
    state = topology(rebuilt.mesh)
    state = dataclasses.replace(state, volume=state.volume * rebuilt.cell**3)
    if not state.solid:
        raise MeshError(
            f"the mesh cannot be closed: {state.boundary_edges} open, "
            f"{state.nonmanifold_edges} branching and {state.inconsistent_edges} inconsistent "
            f"edges, {state.nonmanifold_vertices} branching vertices, volume {state.volume:g}",
            hint="try another --set watertight.resolution",
        )
    broken = REMESH_GATES.broken_by(found)
    if broken:
        raise MeshError(
            f"the closed mesh is too far from its source: {broken}",
            hint="try a higher --set watertight.resolution",
        )
    return _accept(rebuilt.placed, "remesh", state, found)


def _decimate(
    result: Watertight, max_faces: int, max_error: float, field: DistanceField | None
) -> Watertight:
    fewer = decimate_within(result.mesh, max_faces, max_error, field)
    figures = result.measurements | {
        "faces_before_decimation": len(result.mesh.faces),
        "decimation_error": fewer.error,
    }
    state = fewer.topology or topology(fewer.mesh)
    return _accept(fewer.mesh, result.rung, state, figures)


def _repair(mesh: Mesh, state: Topology, figures: Figures) -> Mesh:
    if state.nonmanifold_edges or state.nonmanifold_vertices:
        missing = missing_reason("pymeshlab")
        if missing is None:
            mesh = repair_manifold(mesh)
        else:
            figures["missing"] = missing
    return orient_outward(cap_holes(mesh).mesh)


def hidden_share(mesh: Mesh, seed: int = 0, field: DistanceField | None = None) -> float:
    """Return the part of a closed mesh's area that lies inside the solid it bounds."""
    rng = np.random.default_rng(seed)
    points, normals, _ = sample_faces(mesh, _HIDDEN_SAMPLES, rng)
    offset = _HIDDEN_OFFSET * float(np.linalg.norm(mesh.extents))
    field = field or DistanceField(mesh, winding_exists=True)
    return float(field.contains(points + offset * normals).mean())


def _input_figures(state: Topology) -> Figures:
    return {
        "input_boundary_edges": state.boundary_edges,
        "input_nonmanifold_edges": state.nonmanifold_edges,
        "input_inconsistent_edges": state.inconsistent_edges,
        "input_nonmanifold_vertices": state.nonmanifold_vertices,
        "input_components": state.components,
    }


def _is_solid(mesh: Mesh, state: Topology, figures: Figures) -> DistanceField | None:
    """Return the distance field of a mesh that can be used as it is; record what was hidden."""
    # Volumes at rounding level: a sheet whose two sides coincide.
    flat = 1e-9 * float(np.prod(np.maximum(mesh.extents, 1e-6 * mesh.extents.max())))
    if not state.solid or state.volume <= flat:
        return None
    field = DistanceField(mesh, winding_exists=True)
    share = figures["hidden_share"] = hidden_share(mesh, field=field)
    return field if share <= MAX_HIDDEN else None


def _accept(mesh: Mesh, rung: Rung, state: Topology, figures: Figures) -> Watertight:
    mesh = in_own_places(mesh)
    figures = figures | {
        "faces": len(mesh.faces),
        "shared_places": len(shared_places(mesh.vertices)),
        "components": state.components,
        "genus": state.genus,
        "volume": state.volume,
        "watertight": True,
        "vertex_manifold": state.nonmanifold_vertices == 0,
    }
    return Watertight(mesh=mesh, rung=rung, measurements=figures)
