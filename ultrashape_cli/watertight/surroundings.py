"""What lies around an asset and is not it: inverted hulls, boxes around all, ground planes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import boundary_edges, part_volumes, vertex_components
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rows import first_equal_rows

# A hull that draws an outline is a copy of its body, turned inside out and this much wider at most,
# as part of its longest side; nearly all of the body lies in it.
_WIDER, _INSIDE = 0.1, 0.99
# A box is one around something if that has at least this many times its faces.
_FACES_IN_BOX = 8
# Thickness of a plane beside its length, and its length beside that of all else.
_FLAT, _LONGER = 1e-3, 2.0
_SAMPLES = 2000


class Asset(NamedTuple):
    """A mesh without what lies around it.

    Attributes:
        mesh: The same object where there is nothing around.
        kept: `[F]` which faces were kept.
        notes: What else there is, a line each.
    """

    mesh: Mesh
    kept: NDArray[np.bool_]
    notes: list[str]


def without_surroundings(mesh: Mesh) -> Asset:
    """Return what a mesh shows, and what lies around it.

    Inverted hulls, the copies turned inside out that draw outlines, and a box around all go; a
    plane much longer than the rest is only noted.
    """
    parts = _Parts(mesh)
    kept = np.ones(len(mesh.faces), bool)
    notes: list[str] = []
    if len(parts.sizes) < 2:
        return Asset(mesh, kept, notes)
    hulls = parts.hulls()
    if hulls:
        kept &= ~np.isin(parts.of_faces, hulls)
        notes.append(f"inverted hull of {parts.sizes[hulls].sum():,} faces left out")
    left = np.setdiff1d(np.arange(len(parts.sizes)), hulls)
    for box in parts.boxes(left):
        kept &= parts.of_faces != box
        notes.append("box around everything left out")
        left = left[left != box]
    for times in parts.planes(left):
        notes.append(f"flat sheet {times:.0f} times as long as all else: a ground plane?")
    return Asset(mesh if kept.all() else mesh.with_faces(mesh.faces[kept]), kept, notes)


class _Parts:
    """The parts of a mesh that share no vertex."""

    def __init__(self, mesh: Mesh) -> None:
        self._vertices = mesh.vertices
        keys = np.ascontiguousarray(mesh.vertices + 0.0).view(np.int64)
        self._faces = first_equal_rows(keys)[mesh.faces]
        label = vertex_components(self._faces, len(mesh.vertices))
        _, self.of_faces, self.sizes = np.unique(
            label[self._faces[:, 0]], return_inverse=True, return_counts=True
        )
        self._order = np.argsort(self.of_faces, kind="stable")
        self._starts = np.cumsum(self.sizes) - self.sizes
        corners = mesh.vertices[self._faces[self._order]]
        self._low = np.minimum.reduceat(corners.min(axis=1), self._starts, axis=0)
        self._high = np.maximum.reduceat(corners.max(axis=1), self._starts, axis=0)
        self._side = (self._high - self._low).max(axis=1)

    def hulls(self) -> list[int]:
        """Return the parts that are inverted hulls of others."""
        label = np.zeros(len(self._vertices), np.int64)
        label[self._faces] = self.of_faces[:, None]
        volumes = part_volumes(self._vertices, self._faces, label)
        found = []
        for hull in np.flatnonzero(volumes < 0).tolist():
            wider = np.concatenate([self._low - self._low[hull], self._high[hull] - self._high], 1)
            bodies = (volumes > 0) & (self.sizes == self.sizes[hull]) & (wider >= 0).all(axis=1)
            bodies &= wider.max(axis=1) <= _WIDER * self._side[hull]
            if any(self._encloses(hull, body) for body in np.flatnonzero(bodies).tolist()):
                found.append(hull)
        return found

    def boxes(self, left: NDArray[np.int64]) -> list[int]:
        """Return the parts of `left` that are a box around all others, if one is."""
        low, high = self._low[left].min(axis=0), self._high[left].max(axis=0)
        for part in left.tolist():
            others = self.sizes[left].sum() - self.sizes[part]
            if (
                (self._low[part] == low).all()
                and (self._high[part] == high).all()
                and others >= _FACES_IN_BOX * self.sizes[part]
                and self._is_box(part)
            ):
                return [part]
        return []

    def planes(self, left: NDArray[np.int64]) -> list[float]:
        """Return how many times longer than all else a flat part of `left` is, if one is."""
        thin = (self._high - self._low).min(axis=1) <= _FLAT * self._side
        for part in left[thin[left]].tolist():
            others = left[left != part]
            if not len(others):
                continue
            rest = (self._high[others].max(axis=0) - self._low[others].min(axis=0)).max()
            if self._side[part] >= _LONGER * rest:
                return [float(self._side[part] / rest)]
        return []

    def _mesh(self, part: int) -> Mesh:
        rows = self._order[self._starts[part] :][: self.sizes[part]]
        return Mesh(self._vertices, self._faces).with_faces(self._faces[rows])

    def _encloses(self, hull: int, body: int) -> bool:
        outer, inner = self._mesh(hull), self._mesh(body)
        if len(boundary_edges(outer.faces)) or len(boundary_edges(inner.faces)):
            return False
        step = -(-len(inner.vertices) // _SAMPLES)
        field = DistanceField(outer, winding_exists=True)
        return bool(field.contains(inner.vertices[::step]).mean() >= _INSIDE)

    def _is_box(self, part: int) -> bool:
        """Say whether all faces lie on the part's box, and cover it."""
        mesh, low, high = self._mesh(part), self._low[part], self._high[part]
        near = 1e-6 * self._side[part]
        corners = mesh.triangles
        on_low = (np.abs(corners - low) <= near).all(axis=1)
        on_high = (np.abs(corners - high) <= near).all(axis=1)
        x, y, z = high - low
        area = 2 * (x * y + y * z + z * x)
        covered = float(mesh.area_faces.sum())
        return bool((on_low | on_high).any(axis=1).all()) and abs(covered - area) <= 1e-3 * area
