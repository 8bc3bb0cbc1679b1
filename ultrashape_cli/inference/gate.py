"""What is wrong with a coarse mesh before it is refined, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ultrashape_cli.geometry.check import face_components, topology
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces

MAX_OPEN = 0.01
"""Boundary edges, as a share of the faces, above which a mesh is fragmented."""
MAX_BRANCHING = 0.01
"""The same for edges of three faces or more."""
MIN_LARGEST = 0.5
"""Share of the area that the largest component of a whole mesh has."""
MAX_COMPONENTS = 50
"""Components above which the largest must have that share."""
MAX_DOUBLE = 0.25
"""Share of the surface with a second wall close behind it."""
_WALL = 0.03  # thickness of a double wall, as part of the longest side
_SAMPLES = 4000
_OFFSET = 1e-4


@dataclass(frozen=True, slots=True)
class InputReport:
    """Measurements of a coarse mesh whose identical vertices are merged."""

    faces: int
    components: int
    largest_component: float
    """Share of the area that the largest component has."""
    boundary_edges: int
    boundary_loops: int
    nonmanifold_edges: int
    double_wall_share: float
    """Share of the surface with a second wall close behind it and more of the mesh beyond."""

    @property
    def problems(self) -> list[str]:
        """Returns what makes the mesh fragmented, in words; empty for a usable one."""
        found = []
        if self.boundary_edges > MAX_OPEN * self.faces:
            found.append(f"{self.boundary_edges:,} open edges in {self.boundary_loops:,} loops")
        if self.nonmanifold_edges > MAX_BRANCHING * self.faces:
            found.append(f"{self.nonmanifold_edges:,} branching edges")
        if self.components > MAX_COMPONENTS and self.largest_component < MIN_LARGEST:
            found.append(f"{self.components:,} pieces")
        if self.double_wall_share > MAX_DOUBLE:
            found.append(f"double walls on {self.double_wall_share:.0%} of the surface")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Returns the measurements and the problems as plain values."""
        return {**asdict(self), "problems": self.problems}


def inspect_input(mesh: Mesh) -> InputReport:
    """Returns the measurements of a coarse mesh in any frame."""
    welded = weld(mesh)
    if len(welded.faces) == 0:
        welded = mesh
    state = topology(welded)
    labels = face_components(welded.faces, len(welded.vertices))
    areas = np.bincount(labels, welded.area_faces)
    return InputReport(
        faces=len(welded.faces),
        components=state.components,
        largest_component=round(float(areas.max() / areas.sum()), 4),
        boundary_edges=state.boundary_edges,
        boundary_loops=_count_loops(welded) if state.boundary_edges else 0,
        nonmanifold_edges=state.nonmanifold_edges,
        double_wall_share=round(_double_walls(welded), 4),
    )


def _count_loops(mesh: Mesh) -> int:
    """Returns the parts that the open edges fall into."""
    from ultrashape_cli.geometry.check import boundary_edges, vertex_components

    edges = boundary_edges(mesh.faces)
    flat = np.column_stack([edges, edges[:, 1]])
    labels = vertex_components(flat, len(mesh.vertices))
    return len(np.unique(labels[edges[:, 0]]))


def _double_walls(mesh: Mesh) -> float:
    """Returns the share of the surface that is a wall of a shell thinner than `_WALL`.

    A ray into a solid leaves it once. One that leaves close behind the surface, and then meets
    the mesh again, has crossed a shell. Thin parts of a solid end at the first exit.
    """
    side = float(mesh.extents.max())
    points, normals, _ = sample_faces(mesh, _SAMPLES, np.random.default_rng(0))
    scene = RayScene(mesh)
    distance, face, _ = scene.first_hit(points - _OFFSET * side * normals, -normals)
    near = np.flatnonzero((face >= 0) & (distance < _WALL * side))
    beyond = points[near] - (distance[near, None] + 2 * _OFFSET * side) * normals[near]
    return float(scene.occluded(beyond, -normals[near]).sum() / len(points))
