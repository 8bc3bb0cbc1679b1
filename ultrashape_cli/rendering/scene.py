"""What all views of a mesh share, and what one camera sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.rendering.cameras import Camera
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.normals import corner_normals
from ultrashape_cli.rendering.raster import rasterise
from ultrashape_cli.rendering.shading import surface_points

# Layers of holes (alpha masks) that a view looks through.
_MAX_LAYERS = 16
_STEP = 1e-4


@dataclass(slots=True)
class Hits:
    """The samples of a window that see the surface; S of them, in rows.

    Attributes:
        top, left: First row and column of the window, in pixels.
        shape: Rows and columns of the window, in samples.
        supersample: Samples of a pixel along each axis.
        index: `[S]` number of the sample in the window.
        point, smooth, flat, origin: `[S, 3]`, see `surface_points`.
        albedo: `[S, 3]` linear reflectance, or None for clay.
    """

    top: int
    left: int
    shape: tuple[int, int]
    supersample: int
    index: NDArray[np.int64]
    point: NDArray[np.float32]
    smooth: NDArray[np.float32]
    flat: NDArray[np.float32]
    origin: NDArray[np.float32]
    albedo: NDArray[np.float32] | None


class Scene:
    """A mesh prepared for views, with its colours or as clay."""

    def __init__(self, mesh: Mesh, colours: SurfaceColours | None = None) -> None:
        self.mesh = mesh
        self.colours = colours
        self.size = float(mesh.extents.max())

    @cached_property
    def rays(self) -> RayScene:
        """The mesh for secondary rays."""
        return RayScene(self.mesh)

    @cached_property
    def corners(self) -> NDArray[np.float32]:
        """Normals of the face corners `[F, 3, 3]`."""
        return corner_normals(self.mesh)

    def look(self, camera: Camera, supersample: int) -> Hits:
        """Return what the samples of a view hit, behind the holes of alpha masks."""
        seen = rasterise(self.mesh, camera, supersample)
        index = np.flatnonzero(seen.face >= 0)
        face, uv = seen.face.ravel()[index], seen.uv.reshape(-1, 2)[index]
        points = self._points(camera, face, uv)
        albedo = None
        if self.colours is not None:
            rgba = self.colours.at(points[0], points[2])
            if self.colours.has_holes:
                kept = self._look_through(camera, self.colours, points, rgba)
                index, rgba = index[kept], rgba[kept]
                points = tuple(values[kept] for values in points)
            albedo = np.ascontiguousarray(rgba[:, :3])
        top, left = seen.top // supersample, seen.left // supersample
        point, smooth, flat, origin = points
        height, width = seen.face.shape
        return Hits(
            top, left, (height, width), supersample, index, point, smooth, flat, origin, albedo
        )

    def _points(
        self, camera: Camera, face: NDArray[np.int32], uv: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], ...]:
        eye = np.full(3, np.nan) if camera.orthographic else camera.position
        axis = np.ascontiguousarray(camera.world_to_camera[2, :3])
        mesh = self.mesh
        return surface_points(mesh.faces, mesh.vertices, self.corners, face, uv, eye, axis)

    def _look_through(
        self,
        camera: Camera,
        colours: SurfaceColours,
        points: tuple[NDArray[np.float32], ...],
        rgba: NDArray[np.float32],  # [S, 4]
    ) -> NDArray[np.bool_]:
        """Replace samples on holes by what lies behind; return which see anything `[S]`."""
        open_ = np.flatnonzero(rgba[:, 3] == 0)
        for _ in range(_MAX_LAYERS):
            if len(open_) == 0:
                break
            start = points[0][open_]
            if camera.orthographic:
                along = np.broadcast_to(camera.world_to_camera[2, :3], start.shape)
            else:
                along = start - camera.position
            along = along / np.linalg.norm(along, axis=1, keepdims=True)
            start = start + along * (_STEP * self.size)
            _, face, uv = self.rays.first_hit(start, along)
            hit = face >= 0
            open_, face, uv = open_[hit], face[hit], uv[hit]
            for target, values in zip(points, self._points(camera, face, uv), strict=True):
                target[open_] = values
            rgba[open_] = colours.at(points[0][open_], points[2][open_])
            open_ = open_[rgba[open_, 3] == 0]
        return rgba[:, 3] > 0
