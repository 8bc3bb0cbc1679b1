"""Pictures of a mesh file as it was read: in its colours, from the front and all around."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Front, Up, fit_frame
from ultrashape_cli.meshfiles.appearance import Appearance
from ultrashape_cli.rendering.cameras import Camera, bounding_radius, look_at, towards, view_set
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

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
        front: Axis of the upright mesh that the front looks along.
    """
    frame = fit_frame(mesh, up=up, front=front)
    placed = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
    coloured = appearance is not None and appearance.has_colour
    colours = SurfaceColours(appearance, frame) if appearance and coloured else None
    radius = bounding_radius(placed)
    cameras = view_set(1 if turntable else views, radius=radius, size=size)
    if turntable:
        cameras = _turned(cameras[0], views)
    scene = Scene(placed, colours)
    return list(render_views(scene, cameras))


def _turned(camera: Camera, steps: int) -> list[Camera]:
    distance = float(np.linalg.norm(camera.position))
    found = []
    for step in range(steps):
        place = distance * towards(360 * step / steps, _ELEVATION)
        found.append(replace(camera, world_to_camera=look_at(place)))
    return found
