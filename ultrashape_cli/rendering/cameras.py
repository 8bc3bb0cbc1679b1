"""Cameras in the OpenCV convention, and the sets of views an asset is rendered from.

World: the normalised frame, y up, the front of the asset towards +z. Camera: x right, y down, z
forward. Pixel (0, 0) is the upper left one; its centre has the image coordinates (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.geometry.mesh import Mesh

# (azimuth, elevation) in degrees: the sides first, then from above, then from below.
_NAMED_DIRECTIONS = (
    (0, 0), (90, 0), (180, 0), (270, 0), (45, 35), (225, 35), (135, -25), (315, -25),
)  # fmt: skip
# Generators of the R2 low-discrepancy sequence: 1/p and 1/p^2 for the real root of p^3 = p + 1.
_R2 = (0.7548776662466927, 0.5698402909980532)


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera.

    Attributes:
        world_to_camera: `[4, 4]` float64 rigid transform.
        fx, fy: Focal lengths in pixels.
        cx, cy: Principal point in image coordinates.
        width, height: Image size in pixels.
    """

    world_to_camera: NDArray[np.float64]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def position(self) -> NDArray[np.float64]:
        """Position `[3]` in world coordinates."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    def project(self, points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return image coordinates `[N, 2]` and depths `[N]` along z of world points `[N, 3]`."""
        seen = np.asarray(points, np.float64) @ self.world_to_camera[:3, :3].T
        seen = seen + self.world_to_camera[:3, 3]
        pixels = seen[..., :2] / seen[..., 2:] * (self.fx, self.fy) + (self.cx, self.cy)
        return pixels, seen[..., 2]

    def rays(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return world directions `[N, 3]`, depth 1 long, through image coordinates `[N, 2]`."""
        plane = (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        directions = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
        return directions @ self.world_to_camera[:3, :3]

    def to_dict(self) -> dict[str, Any]:
        """Return the camera as plain values; the convention is named with it."""
        return {
            "convention": "opencv: x right, y down, z forward; pixel centres at +0.5",
            "world_to_camera": self.world_to_camera.tolist(),
            "fx": self.fx,
            "fy": self.fy,
            "cx": self.cx,
            "cy": self.cy,
            "width": self.width,
            "height": self.height,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Camera:
        """Return the camera that `to_dict` wrote."""
        names = ("fx", "fy", "cx", "cy", "width", "height")
        matrix = np.asarray(values["world_to_camera"], np.float64).reshape(4, 4)
        return cls(matrix, *(values[name] for name in names))


def look_at(
    position: ArrayLike,  # [3]
    target: ArrayLike = (0.0, 0.0, 0.0),
    up: ArrayLike = (0.0, 1.0, 0.0),
) -> NDArray[np.float64]:
    """Return the world-to-camera transform `[4, 4]` of a camera that looks at a target."""
    position = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - position
    length = float(np.linalg.norm(forward))
    if length == 0:
        raise ValueError("a camera cannot look at its own position")
    forward /= length
    right = np.cross(forward, np.asarray(up, np.float64))
    if np.linalg.norm(right) < 1e-6:
        # Straight up or down: keep the image upright as seen from the front.
        right = np.cross(forward, (0.0, 0.0, -1.0 if forward[1] < 0 else 1.0))
    right /= np.linalg.norm(right)
    transform = np.eye(4)
    transform[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    transform[:3, 3] = -transform[:3, :3] @ position
    return transform


def bounding_radius(mesh: Mesh) -> float:
    """Return the radius about the origin of the sphere that holds the mesh."""
    return float(np.sqrt(np.square(mesh.vertices[np.unique(mesh.faces)]).sum(axis=1).max()))


def view_set(
    num_views: int,
    *,
    radius: float = 1.0,
    size: int = 1024,
    fov_degrees: float = 40.0,
    fill: float = 0.88,
) -> list[Camera]:
    """Return cameras around the origin: front, right, back, left, then above, below, all around.

    The first views are the same for every number of views.

    Args:
        num_views: Number of cameras.
        radius: Radius of the sphere to frame (`bounding_radius`).
        size: Width and height of the images in pixels.
        fov_degrees: Opening angle of the image.
        fill: Diameter of the sphere's outline, as part of the image.
    """
    half = math.tan(math.radians(fov_degrees) / 2)
    distance = radius / math.sin(math.atan(fill * half))
    focal = size / 2 / half
    cameras = []
    for azimuth, elevation in view_directions(num_views):
        a, e = math.radians(azimuth), math.radians(elevation)
        towards = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        cameras.append(
            Camera(
                world_to_camera=look_at(distance * np.array(towards)),
                fx=focal, fy=focal, cx=size / 2, cy=size / 2, width=size, height=size,
            )
        )  # fmt: skip
    return cameras


def view_directions(num_views: int) -> list[tuple[float, float]]:
    """Return azimuth (0 front, 90 right) and elevation of each view, in degrees."""
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, not {num_views}")
    directions = [(float(a), float(e)) for a, e in _NAMED_DIRECTIONS[:num_views]]
    for k in range(1, num_views - len(directions) + 1):
        u, v = (0.5 + k * _R2[0]) % 1, (0.5 + k * _R2[1]) % 1
        # Uniform on the sphere, without the poles, where "up" is undefined.
        directions.append((360 * u, math.degrees(math.asin(0.95 * (2 * v - 1)))))
    return directions
