"""Distance from points to a mesh, with and without sign."""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bvh import axis_crossings, build_tree, closest_faces
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh, weld


class DistanceField:
    """A mesh prepared for exact float64 distance queries.

    Inside means a winding number other than zero, found by one ray with exact edge rules. If the
    mesh is open or its faces disagree, no such number exists; then the majority of the crossing
    parities along the three axes decides.
    """

    def __init__(self, mesh: Mesh, winding_exists: bool | None = None) -> None:
        """Prepare a mesh; `winding_exists` tells whether it is closed, where that is known."""
        if len(mesh.faces) == 0:
            raise MeshError("cannot measure distances to a mesh without faces")
        self._mesh = mesh
        self._tree = build_tree(mesh.triangles)
        self._winding_exists = winding_exists

    def unsigned(
        self,
        points: NDArray[np.floating],  # [N, 3]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the distance `[N]` to the surface and the closest face `[N]`."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        order = morton_order(points, self._tree.low[0], self._tree.high[0])
        squared, closest = closest_faces(self._tree, points[order])
        distance = np.empty(len(points))
        face = np.empty(len(points), np.int64)
        distance[order] = np.sqrt(squared)
        face[order] = self._tree.faces[closest]
        return distance, face

    def signed(
        self,
        points: NDArray[np.floating],  # [N, 3]
    ) -> NDArray[np.float64]:
        """Return the signed distance `[N]`, positive outside."""
        distance, _ = self.unsigned(points)
        return np.where(self.contains(points), -distance, distance)

    def contains(
        self,
        points: NDArray[np.floating],  # [N, 3]
    ) -> NDArray[np.bool_]:
        """Return whether each point lies inside `[N]`."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        order = morton_order(points, self._tree.low[0], self._tree.high[0])
        inside = np.empty(len(points), bool)
        if self._has_winding_number():
            inside[order] = axis_crossings(self._tree, points[order], 0)[0] != 0
            return inside
        votes = np.zeros(len(points), np.int64)
        for axis in range(3):
            votes[order] += axis_crossings(self._tree, points[order], axis)[1] & 1
        return votes >= 2

    def _has_winding_number(self) -> bool:
        if self._winding_exists is None:
            welded = topology(self._mesh).watertight or topology(weld(self._mesh)).watertight
            self._winding_exists = welded
        return self._winding_exists


def morton_order(
    points: NDArray[np.floating], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return an order that visits points along a Z-curve over the box, cells of 1/1024."""
    cell = (points - low) * (1023 / np.maximum(high - low, 1e-300))
    return np.argsort(_interleave(np.clip(cell, 0, 1023).astype(np.int64)), kind="stable")


@kernel
def _interleave(cells):
    codes = np.zeros(len(cells), np.int64)
    for i in range(len(cells)):
        code = 0
        for bit in range(10):
            for x in range(3):
                code |= ((cells[i, x] >> bit) & 1) << (3 * bit + x)
        codes[i] = code
    return codes
