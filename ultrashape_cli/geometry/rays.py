"""Ray queries against a mesh, on Embree (package embreex)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh

# Embree is called in pieces of this many rays to bound the float32 copies.
_CHUNK = 1 << 20


class RayScene:
    """A mesh prepared for ray queries.

    Embree works in float32, so the mesh is centred and scaled to [-1, 1]^3 inside; arguments and
    results stay in the frame of the mesh. A ray that starts on a face may hit it: move the origin.
    """

    def __init__(self, mesh: Mesh) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except (ImportError, OSError) as error:
            raise DependencyError(
                f"ray queries need embreex, which does not load: {error}",
                hint="pip install embreex",
            ) from error
        low, high = mesh.bounds
        self._centre = (low + high) / 2
        self._scale = 2 / max(float((high - low).max()), np.finfo(np.float64).tiny)
        vertices = (mesh.vertices - self._centre) * self._scale
        # Robust mode: without it a ray can slip between two triangles that share an edge.
        self._scene: Any = EmbreeScene(robust=True)
        TriangleMesh(
            self._scene,
            np.ascontiguousarray(vertices, dtype=np.float32),
            np.ascontiguousarray(mesh.faces, dtype=np.int32),
        )

    def first_hit(
        self,
        origins: NDArray[np.floating],  # [N, 3]
        directions: NDArray[np.floating],  # [N, 3], any length
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """Return the first hit of each ray.

        Returns:
            Distance `t [N]` in units of the direction's length, infinite without a hit; face `[N]`,
            -1 without a hit; barycentric `uv [N, 2]` of the second and third corner.
        """
        count = len(origins)
        distance = np.full(count, np.inf, np.float32)
        face = np.full(count, -1, np.int32)
        uv = np.zeros((count, 2), np.float32)
        for start in range(0, count, _CHUNK):
            part = slice(start, start + _CHUNK)
            from_, along, length = self._to_scene(origins[part], directions[part])
            found = self._scene.run(from_, along, output=True)
            hit = found["primID"] >= 0
            face[part] = np.where(hit, found["primID"], -1)
            distance[part] = np.where(hit, found["tfar"] / (length * self._scale), np.inf)
            uv[part, 0] = found["u"]
            uv[part, 1] = found["v"]
        return distance, face, uv

    def occluded(
        self,
        origins: NDArray[np.floating],  # [N, 3]
        directions: NDArray[np.floating],  # [N, 3], any length
        max_distance: float | NDArray[np.floating] = np.inf,  # scalar or [N], in mesh units
    ) -> NDArray[np.bool_]:
        """Return whether anything lies within `max_distance` along each ray `[N]`."""
        count = len(origins)
        blocked = np.zeros(count, bool)
        reach = np.broadcast_to(np.asarray(max_distance, np.float64), (count,))
        for start in range(0, count, _CHUNK):
            part = slice(start, start + _CHUNK)
            from_, along, _ = self._to_scene(origins[part], directions[part])
            limit = np.minimum(reach[part] * self._scale, 1e30).astype(np.float32)
            blocked[part] = self._scene.run(from_, along, limit, query="OCCLUDED") >= 0
        return blocked

    def _to_scene(
        self, origins: NDArray[np.floating], directions: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        return _place_rays(origins, directions, self._centre, self._scale)


@kernel
def _place_rays(origins, directions, centre, scale):
    """Return origins in the scene's frame, unit directions, and their former lengths."""
    from_ = np.empty((len(origins), 3), np.float32)
    along = np.empty((len(origins), 3), np.float32)
    lengths = np.empty(len(origins))
    for i in range(len(origins)):
        x, y, z = directions[i, 0], directions[i, 1], directions[i, 2]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-38)
        along[i, 0], along[i, 1], along[i, 2] = x / length, y / length, z / length
        lengths[i] = length
        for a in range(3):
            from_[i, a] = (origins[i, a] - centre[a]) * scale
    return from_, along, lengths
