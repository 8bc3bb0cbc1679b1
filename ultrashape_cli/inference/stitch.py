"""Joins what a refinement made of a region to the mesh that it was made from.

The refined surface is drawn onto the former one towards the border of the region, and there the two
are cut and joined as solids (package manifold3d, in float64, which keeps every corner that it does
not cut): outside of the region each vertex and face is the former one. A blend of two fields would
have to extract the former surface anew, and so could not keep it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import DependencyError, MeshError
from ultrashape_cli.geometry.bricks import BrickGrid, all_nodes
from ultrashape_cli.geometry.check import face_components, part_volumes, topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.inference.region import Region
from ultrashape_cli.watertight.orient import orient_outward

CUT = 0.25
"""Share of the feather, from the border of the region, where the two surfaces are joined."""
_CELLS = 96
_CRUMB = 1e-6
"""Volume of a loose part within the region that is no part of any shape, of a cube of 8."""
_SIDE = 1.05
"""Half the side of the cube that a region's solid is cut from: the mesh is well inside."""


def require_solid(mesh: Mesh) -> Mesh:
    """Returns a mesh welded, if it bounds a solid.

    Raises:
        MeshError: It does not: nothing can be joined to it.
    """
    welded = weld(mesh)
    state = topology(welded)
    if state.boundary_edges or state.nonmanifold_edges:
        raise MeshError(
            f"a region needs a closed mesh, and this one has {state.boundary_edges} open and "
            f"{state.nonmanifold_edges} branching edges",
            hint="--repair closes it first, and the rest is kept of what that makes",
        )
    if state.inconsistent_edges or state.volume <= 0:
        # Which side is out is no change of shape.
        welded = orient_outward(welded)
    _solid(welded)  # or what is wrong with it would only show after the work
    return welded


def stitch(refined: Mesh, former: Mesh, region: Region) -> Mesh:
    """Returns the former mesh with the refined one in its place within a region.

    Args:
        refined: What was made of the mesh, closed.
        former: The mesh it was made from, from `require_solid`.
        region: Of what may change. All in one normalised frame.

    Raises:
        MeshError: The two cannot be joined.
        DependencyError: manifold3d does not load.
    """
    moved = drawn_onto(refined, former, region)
    before, after, solid = (_solid(mesh) for mesh in (former, moved, region_solid(region)))
    joined = _mesh((before - solid) + (after ^ solid))
    return _without_slivers(joined, region)


def _without_slivers(mesh: Mesh, region: Region) -> Mesh:
    """Returns a mesh without the loose crumbs that a cut through two close surfaces leaves."""
    labels = face_components(mesh.faces, len(mesh.vertices))
    outside = region.distance(mesh.vertices) >= 0
    volumes = np.abs(part_volumes(mesh.vertices, mesh.faces, labels))
    kept = (np.bincount(labels, outside[mesh.faces].any(1)) > 0) | (volumes > _CRUMB)
    return mesh if kept.all() else mesh.with_faces(mesh.faces[kept[labels]])


def drawn_onto(refined: Mesh, former: Mesh, region: Region) -> Mesh:
    """Returns the refined mesh, drawn onto the former one where the region lets less change."""
    weight = region.weight(refined.vertices, start=CUT)
    part = np.flatnonzero((weight < 1) & (region.distance(refined.vertices) < region.feather))
    vertices = refined.vertices.copy()
    if len(part):
        points = vertices[part]
        _, face = DistanceField(former, winding_exists=True).unsigned(points)
        goal = _closest_points(points, former.triangles[face])
        vertices[part] = goal + weight[part, None] * (points - goal)
    return Mesh(vertices, refined.faces)


def region_solid(region: Region) -> Mesh:
    """Returns the surface of a region, less what its feather keeps of it."""
    nodes = all_nodes(_CELLS)
    values = region.distance(_SIDE * (2 * nodes / _CELLS - 1)) + CUT * region.feather
    border = ((nodes == 0) | (nodes == _CELLS)).any(1)
    # Nodes at exactly zero make faces without area.
    values = np.where(border, 1.0, np.where(values == 0, 1e-9, values))
    grid = BrickGrid.from_nodes(_CELLS, nodes, -values)
    vertices, faces = extract_isosurface(grid, inside="positive")
    if len(faces) == 0:
        raise MeshError(
            "the region is smaller than what its border needs to set in",
            hint="a larger region, or --set refine.region_feather=0",
        )
    return weld(Mesh(_SIDE * (2 * vertices / _CELLS - 1), faces))


def _closest_points(
    points: NDArray[np.float64],  # [N, 3]
    triangles: NDArray[np.float64],  # [N, 3, 3]
) -> NDArray[np.float64]:  # [N, 3]
    from trimesh.triangles import closest_point

    return np.asarray(closest_point(triangles, points))


def _solid(mesh: Mesh) -> Any:
    try:
        import manifold3d
    except ImportError as error:
        raise DependencyError(
            f"a region needs manifold3d, which does not load: {error}",
            hint="pip install manifold3d",
        ) from error
    solid = manifold3d.Manifold(
        manifold3d.Mesh64(
            np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces, np.uint64)
        )
    )
    if solid.status() != manifold3d.Error.NoError:
        raise MeshError(
            f"the meshes cannot be joined: {solid.status().name}",
            hint="--repair, which makes a clean solid of the input first",
        )
    return solid


def _mesh(solid: Any) -> Mesh:
    found = solid.to_mesh64()
    return Mesh.from_arrays(np.asarray(found.vert_properties)[:, :3], np.asarray(found.tri_verts))
