"""Cameras in the OpenCV convention, and the sets of views an asset is rendered from.

World: the normalised frame, y up, the front of the asset towards +z. Camera: x right, y down, z
forward. Pixel (0, 0) is the upper left one; its centre has the image coordinates (0.5, 0.5).
A point p of the world has the camera coordinates q = R p + t, where (R | t) are the upper rows of
`world_to_camera`, and the image coordinates (fx q_x / q_z + cx, fy q_y / q_z + cy); without the
divisions by q_z if the camera is orthographic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
# Seeded views: the opening angle varies by a factor of exp(+-0.5), the roll within these bounds.
_ZOOM, _ROLL_DEGREES = 0.5, 12.0


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole or orthographic camera.

    Attributes:
        world_to_camera: `[4, 4]` float64 rigid transform.
        fx, fy: Focal lengths in pixels; of an orthographic camera, pixels per unit of length.
        cx, cy: Principal point in image coordinates.
        width, height: Image size in pixels.
        orthographic: Whether all rays are parallel.
    """

    world_to_camera: NDArray[np.float64]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    orthographic: bool = False

    @property
    def position(self) -> NDArray[np.float64]:
        """Position `[3]` in world coordinates."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    def project(self, points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return image coordinates `[N, 2]` and depths `[N]` along z of world points `[N, 3]`."""
        seen = np.asarray(points, np.float64) @ self.world_to_camera[:3, :3].T
        seen = seen + self.world_to_camera[:3, 3]
        plane = seen[..., :2] if self.orthographic else seen[..., :2] / seen[..., 2:]
        return plane * (self.fx, self.fy) + (self.cx, self.cy), seen[..., 2]

    def rays(self, pixels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return world origins and directions, `[N, 3]` each, through image coordinates `[N, 2]`.

        Directions are 1 long along z, so that the depth of a point is its distance in lengths.
        """
        plane = (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        rotation = self.world_to_camera[:3, :3]
        if self.orthographic:
            origins = self.position + plane @ rotation[:2]
            return origins, np.broadcast_to(rotation[2], origins.shape)
        directions = np.concatenate([plane, np.ones((len(plane), 1))], axis=1) @ rotation
        return np.broadcast_to(self.position, directions.shape), directions

    def to_dict(self) -> dict[str, Any]:
        """Return the camera as plain values; the convention is named with it."""
        return {
            "convention": "opencv: x right, y down, z forward; pixel centres at +0.5",
            "model": "orthographic" if self.orthographic else "pinhole",
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
        orthographic = values.get("model") == "orthographic"
        return cls(matrix, **{name: values[name] for name in names}, orthographic=orthographic)


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
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    return float(np.sqrt(np.square(mesh.vertices[used]).sum(axis=1).max()))


def view_set(
    num_views: int,
    *,
    radius: float = 1.0,
    size: int = 1024,
    fov_degrees: float = 40.0,
    fill: float = 0.88,
    orthographic: bool = False,
    elevations: Sequence[float] = (),
    seed: int | None = None,
) -> list[Camera]:
    """Return cameras around the origin: front, right, back, left, then above, below, all around.

    The first views are the same for every number of views.

    Args:
        num_views: Number of cameras.
        radius: Radius of the sphere to frame (`bounding_radius`).
        size: Width and height of the images in pixels.
        fov_degrees: Opening angle of the image; without effect on orthographic cameras.
        fill: Diameter of the sphere's outline, as part of the image.
        orthographic: Parallel rays instead of a pinhole.
        elevations: Rings of views at these degrees instead, see `view_directions`.
        seed: Vary the opening angle and the roll of each camera at random; None keeps them.
    """
    cameras = []
    for index, direction in enumerate(view_directions(num_views, elevations)):
        fov, roll = fov_degrees, 0.0
        if seed is not None:
            rng = np.random.default_rng([seed, index])
            fov = float(np.clip(fov * math.exp(rng.uniform(-_ZOOM, _ZOOM)), 1, 120))
            roll = float(rng.uniform(-_ROLL_DEGREES, _ROLL_DEGREES))
        cameras.append(
            camera_at(*direction, radius=radius, size=size, fov_degrees=fov, fill=fill,
                      orthographic=orthographic, roll_degrees=roll)
        )  # fmt: skip
    return cameras


def camera_at(
    azimuth: float,
    elevation: float,
    *,
    radius: float = 1.0,
    size: int = 1024,
    fov_degrees: float = 40.0,
    fill: float = 0.88,
    orthographic: bool = False,
    roll_degrees: float = 0.0,
) -> Camera:
    """Return a camera that looks at the origin from a direction in degrees; see `view_set`."""
    half = math.tan(math.radians(fov_degrees) / 2)
    if orthographic:
        focal, distance = fill * size / (2 * radius), 4 * radius
    else:
        focal, distance = size / 2 / half, radius / math.sin(math.atan(fill * half))
    transform = _rolled(look_at(distance * towards(azimuth, elevation)), roll_degrees)
    centre = size / 2
    return Camera(transform, focal, focal, centre, centre, size, size, orthographic)


def towards(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Return the unit vector `[3]` from the origin to a camera, from degrees."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])


def _rolled(world_to_camera: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Return the transform with the image turned about its centre."""
    turn = np.eye(4)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn[:2, :2] = (cosine, -sine), (sine, cosine)
    return turn @ world_to_camera


def view_directions(num_views: int, elevations: Sequence[float] = ()) -> list[tuple[float, float]]:
    """Return azimuth (0 front, 90 right) and elevation of each view, in degrees.

    With elevations the views are spread evenly over one ring for each, in the order given; the
    first rings take what does not divide.
    """
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, not {num_views}")
    if elevations:
        rings = len(elevations)
        counts = [(num_views + rings - 1 - k) // rings for k in range(rings)]
        return [
            (360 * j / count, float(elevation))
            for elevation, count in zip(elevations, counts, strict=True)
            for j in range(count)
        ]
    directions = [(float(a), float(e)) for a, e in _NAMED_DIRECTIONS[:num_views]]
    for k in range(1, num_views - len(directions) + 1):
        u, v = (0.5 + k * _R2[0]) % 1, (0.5 + k * _R2[1]) % 1
        # Uniform on the sphere, without the poles, where "up" is undefined.
        directions.append((360 * u, math.degrees(math.asin(0.95 * (2 * v - 1)))))
    return directions
