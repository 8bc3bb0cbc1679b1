"""Depth, normals and masks of views, as images."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.rendering.cameras import Camera
from ultrashape_cli.rendering.scene import Scene

MapName = Literal["depth", "normal", "mask"]


def view_maps(
    scene: Scene, camera: Camera, supersample: int
) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the maps of a view, and the depth of one step of the depth map.

    `depth` `[H, W]` uint16: distance along z of the camera, rounded to steps, of the nearest
    sample of the pixel; 0 where nothing is. `normal` `[H, W, 4]` uint8: (n + 1) / 2 with x right,
    y up, z towards the viewer; alpha 0 where nothing is. `mask` `[H, W]` uint8: 255 where at least
    half of the pixel is covered.
    """
    hits = scene.look(camera, supersample)
    rows, columns = hits.shape[0] // supersample, hits.shape[1] // supersample
    y, x = np.divmod(hits.index, max(hits.shape[1], 1))
    pixel = (y // supersample) * columns + x // supersample
    count = np.bincount(pixel, minlength=rows * columns)
    rotation = camera.world_to_camera[:3, :3]
    distance = hits.point @ rotation[2] + camera.world_to_camera[2, 3]
    nearest = np.full(rows * columns, np.inf)
    np.minimum.at(nearest, pixel, distance)
    step = float(distance.max()) / 65535 if len(distance) else 1.0
    turned = hits.smooth @ (rotation.T * (1, -1, -1))
    sums = [np.bincount(pixel, turned[:, k], rows * columns) for k in range(3)]
    normal = np.stack(sums, axis=1).astype(np.float64)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    seen = count > 0
    codes = np.zeros((rows * columns, 4), np.uint8)
    codes[seen, :3] = np.round((normal[seen] + 1) * 127.5)
    codes[seen, 3] = 255
    depth = np.zeros(rows * columns, np.uint16)
    depth[seen] = np.round(nearest[seen] / step)
    mask = np.where(2 * count >= supersample**2, 255, 0).astype(np.uint8)
    window = np.s_[hits.top : hits.top + rows, hits.left : hits.left + columns]
    maps: dict[str, NDArray[Any]] = {
        "depth": np.zeros((camera.height, camera.width), np.uint16),
        "normal": np.zeros((camera.height, camera.width, 4), np.uint8),
        "mask": np.zeros((camera.height, camera.width), np.uint8),
    }
    for name, values in (("depth", depth), ("normal", codes), ("mask", mask)):
        maps[name][window] = values.reshape(rows, columns, *values.shape[1:])
    return maps, step
