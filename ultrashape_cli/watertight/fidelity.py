"""How faithful a closed mesh is to what it was made from, measured at random points."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.watertight.nearby import closest_small_faces
from ultrashape_cli.watertight.remesh import Rebuilt

NUM_SAMPLES = 20_000
_UNSEEN_SAMPLES = 5_000
# A point is visible when one of this many directions leads outside.
_NUM_DIRECTIONS = 48
_RAY_OFFSET = 2e-5
# Cells; beyond the bevel that a level set makes of a sharp edge.
_CLEAR = 1.0
# Visible surface farther than this from the result, in cells, is lost.
_LOST = 2.0

Figures = dict[str, float | int | bool | str]


class Gates(NamedTuple):
    """Bounds of the figures of one rung, on the visible surface; distances in voxels."""

    distance_mean_voxels: float
    distance_p999_voxels: float
    lost_share: float
    normal_consistency: float

    def broken_by(self, figures: Figures) -> str:
        """Return the figures that break their bounds, as one line; empty if none does."""
        found = []
        for name, bound in zip(self._fields, self, strict=True):
            lowest = name == "normal_consistency"
            value = float(figures.get(name, -np.inf if lowest else np.inf))
            if not (value >= bound if lowest else value <= bound):
                found.append(f"{name} {value:.3g} (limit {bound:g})")
        return ", ".join(found)


def view_directions(count: int = _NUM_DIRECTIONS) -> NDArray[np.float64]:
    """Return evenly spread unit directions `[N, 3]` (a Fibonacci spiral)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def visible(
    scene: RayScene,
    points: NDArray[np.float64],  # [N, 3]
    normals: NDArray[np.float64],  # [N, 3]
    offset: float,
    two_sided: bool = True,
) -> NDArray[np.bool_]:
    """Return whether each point `[N]` of a surface can be seen from outside.

    Args:
        scene: The surface.
        points: Points on it.
        normals: Their normals.
        offset: Distance from the surface at which rays start.
        two_sided: Whether the back of a face can be seen as well.
    """
    seen = np.zeros(len(points), bool)
    for direction in view_directions():
        facing = normals @ direction
        ask = np.flatnonzero(~seen & ((facing != 0) if two_sided else (facing > 0)))
        start = points[ask] + offset * np.sign(facing[ask])[:, None] * normals[ask]
        along = np.broadcast_to(direction, start.shape)
        seen[ask] = ~scene.occluded(start, along)
    return seen


def fidelity_of_rebuilt(source: Mesh, rebuilt: Rebuilt, seed: int = 0) -> Figures:
    """Return how far the visible surface of the source is from the rebuilt mesh."""
    rng = np.random.default_rng(seed)
    points, normals, _ = sample_faces(source, NUM_SAMPLES, rng)
    points = (points - rebuilt.origin) / rebuilt.cell
    extent = float(np.linalg.norm(source.extents)) / rebuilt.cell
    offset = _RAY_OFFSET * extent
    seen = visible(rebuilt.bare, points, normals, offset)
    points, normals = points[seen], normals[seen]
    if len(points) == 0:
        return {"visible_share": 0.0}
    vertices, faces = rebuilt.mesh.vertices, rebuilt.mesh.faces
    distance, face = closest_small_faces(vertices, faces, points)
    # What a lid hides is lost, such as the inside of a cup that became a plug.
    hidden = np.zeros(len(points), bool)
    if rebuilt.bare is not rebuilt.scene:
        hidden = ~visible(rebuilt.scene, points, normals, offset)
    found = face >= 0
    corners = vertices[faces[face[found]]]
    cosine = _cosine(corners, normals[found])
    return _figures(distance, cosine, extent, 1.0, hidden) | {
        "visible_share": float(seen.mean()),
        "unseen_share": unseen_share(rebuilt.mesh, rebuilt.scene, _CLEAR),
    }


def unseen_share(mesh: Mesh, scene: RayScene, offset: float) -> float:
    """Return the part of a closed mesh's area that no direction sees from outside.

    Hidden shells are unseen, and so are the depths of narrow folds.

    Args:
        mesh: Faces turned outward.
        scene: The same surface, or the one it was made from.
        offset: Distance from the mesh at which rays start.
    """
    points, normals, _ = sample_faces(mesh, _UNSEEN_SAMPLES, np.random.default_rng(1))
    return 1 - float(visible(scene, points, normals, offset, two_sided=False).mean())


def fidelity(source: Mesh, field: DistanceField, result: Mesh, cell: float) -> Figures:
    """Return how far the visible surface of the source is from the result of the field."""
    rng = np.random.default_rng(0)
    points, normals, _ = sample_faces(source, NUM_SAMPLES, rng)
    extent = float(np.linalg.norm(source.extents))
    scene = RayScene(source)
    seen = visible(scene, points, normals, _RAY_OFFSET * extent)
    points, normals = points[seen], normals[seen]
    if len(points) == 0:
        return {"visible_share": 0.0}
    distance, face = field.unsigned(points)
    cosine = _cosine(result.vertices[result.faces[face]], normals)
    return _figures(distance, cosine, extent, cell) | {
        "visible_share": float(seen.mean()),
        "unseen_share": unseen_share(result, scene, _RAY_OFFSET * extent),
    }


def unchanged(mesh: Mesh) -> Figures:
    """Return the figures of a mesh that is its own result."""
    offset = _RAY_OFFSET * float(np.linalg.norm(mesh.extents))
    return {
        "unseen_share": unseen_share(mesh, RayScene(mesh), offset),
        "distance_mean": 0.0,
        "distance_p999": 0.0,
        "distance_mean_voxels": 0.0,
        "distance_p999_voxels": 0.0,
        "normal_consistency": 1.0,
        "lost_share": 0.0,
    }


def _cosine(
    corners: NDArray[np.float64],  # [N, 3, 3]
    normals: NDArray[np.float64],  # [N, 3]
) -> NDArray[np.float64]:
    vector = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], axis=1)
    length = np.linalg.norm(vector, axis=1)
    dot = np.abs(np.einsum("ij,ij->i", vector, normals))
    return dot[length > 0] / length[length > 0]


def _figures(
    distance: NDArray[np.float64],
    cosine: NDArray[np.float64],
    extent: float,
    cell: float,
    hidden: NDArray[np.bool_] | bool = False,
) -> Figures:
    mean, high = float(distance.mean()), float(np.quantile(distance, 0.999))
    return {
        "distance_mean": mean / extent,
        "distance_p999": high / extent,
        "distance_mean_voxels": mean / cell,
        "distance_p999_voxels": high / cell,
        "normal_consistency": float(cosine.mean()) if len(cosine) else 0.0,
        "lost_share": float(((distance > _LOST * cell) | hidden).mean()),
    }
