"""Pictures of a mesh file as it was read: in its colours, from the front and all around."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Up, fit_frame
from ultrashape_cli.meshfiles.appearance import Appearance
from ultrashape_cli.rendering.cameras import Camera, bounding_radius, look_at, view_set
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

Front = Literal["z", "-z", "x", "-x"]
_TURN = {"z": 0.0, "x": -90.0, "-z": 180.0, "-x": 90.0}
"""Front -> degrees about the axis that points up."""
_ELEVATION = 15.0


def portraits(
    mesh: Mesh,
    appearance: Appearance | None,
    *,
    views: int = 1,
    turntable: bool = False,
    size: int = 512,
    up: Up = "y",
    front: Front = "z",
) -> list[NDArray[np.uint8]]:
    """Returns pictures `[size, size, 4]`, front first.

    Args:
        mesh: In the frame of its file.
        appearance: Of the same file; None shows clay.
        views: How many.
        turntable: Steps of one turn, slightly from above, instead of the usual set.
        size: Pixels along a side.
        up: Axis of the file that points up.
        front: Axis of the normalised frame that the front looks along.
    """
    frame = fit_frame(mesh.vertices, up=up)
    placed = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
    coloured = appearance is not None and appearance.has_colour
    colours = SurfaceColours(appearance, frame) if appearance and coloured else None
    radius = bounding_radius(placed)
    cameras = view_set(1 if turntable else views, radius=radius, size=size)
    if turntable:
        cameras = _turned(cameras[0], views)
    cameras = [_facing(camera, _TURN[front]) for camera in cameras]
    scene = Scene(placed, colours)
    return list(render_views(scene, cameras))


def _turned(camera: Camera, steps: int) -> list[Camera]:
    distance = float(np.linalg.norm(camera.position))
    found = []
    for step in range(steps):
        a, e = 2 * math.pi * step / steps, math.radians(_ELEVATION)
        towards = (math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e))
        found.append(replace(camera, world_to_camera=look_at(distance * np.array(towards))))
    return found


def _facing(camera: Camera, degrees: float) -> Camera:
    """Returns the camera for a mesh that is turned about y so that its front looks along z."""
    a = math.radians(degrees)
    turn = np.eye(4)
    turn[0, 0] = turn[2, 2] = math.cos(a)
    turn[0, 2], turn[2, 0] = math.sin(a), -math.sin(a)
    return replace(camera, world_to_camera=camera.world_to_camera @ turn)
