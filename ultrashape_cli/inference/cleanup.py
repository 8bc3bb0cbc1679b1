"""From a decoded field to a mesh that other programs accept: surface, floaters, faces, checks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import Topology, face_components, topology
from ultrashape_cli.geometry.decimate import decimate
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.inference.decode import place_vertices
from ultrashape_cli.inference.region import Region
from ultrashape_cli.inference.stitch import stitch
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.orient import orient_outward

OUTSIDE = -1.0
"""Field value of the grid's border, so that every surface closes inside the cube."""
CLOSING_RESOLUTION = (64, 1024)
"""Fewest and most cells of the watertight step that closes an open result."""


@dataclass(slots=True)
class Cleaned:
    """A mesh after the clean-up, and what was done to it."""

    mesh: Mesh
    topology: Topology
    full: Mesh | None
    """The mesh before faces were reduced, where they were."""
    floaters: int
    """Components removed."""
    dropped_faces: int
    """Degenerate and repeated faces removed."""
    repaired: bool
    """The surface was open and the watertight step closed it."""


def surface_mesh(grid: BrickGrid) -> Mesh:
    """Returns the surface of a field (positive inside) on the cube [-1, 1]^3.

    Nodes on the border of the cube count as outside, so that the surface closes there.

    Raises:
        MeshError: The field does not change its sign.
    """
    nodes = grid.nodes(np.isfinite(grid.values))
    border = nodes[((nodes == 0) | (nodes == grid.num_cells)).any(1)]
    grid.set(border, np.minimum(grid.get(border), OUTSIDE))
    vertices, faces = extract_isosurface(grid, inside="positive")
    if len(faces) == 0:
        raise MeshError(
            "the decoded field has no surface",
            hint="train longer, or check that the checkpoint's VAE is trained",
        )
    return Mesh(place_vertices(vertices, grid.num_cells), faces)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where the latents of a result sit."""

    voxels: NDArray[np.int64]  # [M, 3]
    resolution: int
    """Voxels along one side of the cube [-1, 1]^3."""


def clean(mesh: Mesh, config: RefineConfig, tokens: Tokens | None = None) -> Cleaned:
    """Returns the mesh welded, without floaters, closed, turned outward and reduced, as set.

    Args:
        mesh: Surface of a decoded field.
        config: What is to be done.
        tokens: Parts that lie far from all of them are floaters too; None knows of none.

    Raises:
        DependencyError: Faces are to be reduced and nothing that does it can load.
    """
    welded = weld(mesh)
    dropped = len(mesh.faces) - len(welded.faces)
    floaters = 0
    if not config.keep_floaters:
        if tokens is not None:
            welded, floaters = remove_imagined(welded, tokens)
        welded, small = remove_floaters(welded, config.floater_ratio)
        floaters += small
    state = topology(welded)
    repaired = not state.watertight
    if repaired:
        low, high = CLOSING_RESOLUTION
        welded = make_watertight(welded, max(low, min(config.grid_resolution, high))).mesh
        state = topology(welded)
    if state.volume < 0:
        welded = orient_outward(welded)
        state = topology(welded)
    full = None
    if 0 < config.faces < len(welded.faces):
        full, welded = welded, decimate(welded, config.faces, watertight=state.watertight)
        state = topology(welded)
    return Cleaned(welded, state, full, floaters, dropped, repaired)


def stitched(cleaned: Cleaned, former: Mesh, region: Region) -> Cleaned:
    """Returns a cleaned mesh joined to the one it was made from, outside of a region.

    Raises:
        MeshError: The two cannot be joined.
    """
    mesh = stitch(cleaned.mesh, former, region)
    return replace(cleaned, mesh=mesh, topology=topology(mesh), full=None)


def remove_floaters(mesh: Mesh, ratio: float) -> tuple[Mesh, int]:
    """Drops components with fewer than `ratio` of the largest one's faces; returns how many."""
    labels = face_components(mesh.faces, len(mesh.vertices))
    sizes = np.bincount(labels)
    keep = sizes >= ratio * sizes.max()
    if keep.all():
        return mesh, 0
    return mesh.with_faces(mesh.faces[keep[labels]]), int((~keep).sum())


def remove_imagined(mesh: Mesh, tokens: Tokens) -> tuple[Mesh, int]:
    """Drops components without a vertex in a token's voxel or beside it; returns how many.

    No latent speaks for what is there: the field is what the decoder makes of far-away ones. All
    stay where none is near.
    """
    occupied = np.zeros((tokens.resolution,) * 3, bool)
    occupied[tuple(tokens.voxels.T)] = True
    occupied = ndimage.binary_dilation(occupied, np.ones((3, 3, 3), bool))
    index = np.floor((mesh.vertices + 1) / 2 * tokens.resolution).astype(np.int64)
    near = occupied[tuple(index.clip(0, tokens.resolution - 1).T)]
    labels = face_components(mesh.faces, len(mesh.vertices))
    keep = np.bincount(labels, near[mesh.faces].any(1)) > 0
    if keep.all() or not keep.any():
        return mesh, 0
    return mesh.with_faces(mesh.faces[keep[labels]]), int((~keep).sum())
