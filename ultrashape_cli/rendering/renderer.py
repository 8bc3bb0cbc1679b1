"""Renders of a mesh on transparent ground, on the CPU: first hits by raster, light by rays."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.rendering.cameras import Camera
from ultrashape_cli.rendering.film import develop
from ultrashape_cli.rendering.lights import Rig, RigName, light_rig
from ultrashape_cli.rendering.scene import Hits, Scene
from ultrashape_cli.rendering.shading import (
    CLAY_ALBEDO,
    filter_factors,
    hammersley,
    hemisphere_directions,
    light_directions,
    matching_factors,
    pixel_shifts,
    shade,
)

# Secondary rays are traced in groups of about this many, to bound memory.
_GROUP_RAYS = 1 << 20
# Reach of ambient occlusion and offset of secondary rays, as parts of the mesh's longest side.
_AMBIENT_REACH = 0.25
_RAY_OFFSET = 2e-4
# Two points belong to one surface if they lie less than this off each other's tangent plane.
_SAME_SURFACE = 2e-3


def render_views(
    scene: Scene,
    cameras: Iterable[Camera],
    *,
    lights: RigName = "studio",
    supersample: int = 2,
    ambient_rays: int = 5,
    shadow_rays: int = 3,
    filter_size: int = 4,
    seed: int = 0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield one image `[H, W, 4]` for each camera: sRGB with straight alpha, ground transparent.

    The lights turn with the camera. The same arguments give the same bytes.

    Args:
        scene: The surface; both of its sides are visible.
        cameras: Views of the mesh, in its frame.
        lights: The rig, see `lights.light_rig`.
        supersample: Samples of a pixel along each axis.
        ambient_rays: Rays for ambient occlusion, for each pixel.
        shadow_rays: Rays to the key light, for each pixel; 1 gives a hard shadow.
        filter_size: Visibility is averaged over windows of so many pixels along a side, within
            one surface; 1 leaves the noise in.
        seed: Seed of the sample patterns and of random lights.
    """
    patterns = hammersley(ambient_rays), hammersley(shadow_rays)
    shifts = pixel_shifts(filter_size, seed)
    for number, camera in enumerate(cameras):
        rig = light_rig(lights, seed, number)
        yield _render(scene, camera, rig, supersample, patterns, shifts)


def _render(
    scene: Scene,
    camera: Camera,
    rig: Rig,
    supersample: int,
    patterns: tuple[NDArray[np.float32], NDArray[np.float32]],
    shifts: NDArray[np.float32],
) -> NDArray[np.uint8]:
    image = np.zeros((camera.height, camera.width, 4), np.uint8)
    hits = scene.look(camera, supersample)
    if len(hits.index) == 0:
        return image
    lights = rig.world_directions(camera.world_to_camera)
    factors = _factors(scene, hits, lights[0], rig.key_radius, patterns, shifts)
    if camera.orthographic:
        view = np.asarray(camera.world_to_camera[2:3, :3], np.float32)
    else:
        view = hits.point - camera.position.astype(np.float32)
    albedo = np.full((1, 3), CLAY_ALBEDO, np.float32) if hits.albedo is None else hits.albedo
    samples = np.zeros((*hits.shape, 4), np.float32)
    flat = samples.reshape(-1, 4)
    flat[hits.index, :3] = shade(
        hits.smooth, view, lights, rig.colours, rig.ambient, factors, albedo
    )
    flat[hits.index, 3] = 1
    part = develop(samples, supersample)
    image[hits.top : hits.top + part.shape[0], hits.left : hits.left + part.shape[1]] = part
    return image


def _factors(
    scene: Scene,
    hits: Hits,
    key: NDArray[np.float32],  # [3]
    radius: float,
    patterns: tuple[NDArray[np.float32], NDArray[np.float32]],
    shifts: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the visible part `[S, 2]` of the sky and of the key light at each sample.

    It is traced at one sample of each pixel and averaged over the pixels of the same surface.
    """
    supersample = hits.supersample
    rows, columns = hits.shape[0] // supersample, hits.shape[1] // supersample
    y, x = np.divmod(hits.index, hits.shape[1])
    pixel = (y // supersample) * columns + x // supersample
    # Samples come in rows: the last one written stands for its pixel.
    first = np.full(rows * columns, -1)
    first[pixel] = np.arange(len(pixel))
    covered = np.flatnonzero(first >= 0)
    first = first[covered]
    row, column = np.divmod(covered, columns)
    size = len(shifts)
    shift = shifts[(row + hits.top) % size, (column + hits.left) % size]
    traced = np.ones((rows * columns, 2), np.float32)
    start = _ray_origins(scene, hits, first)
    traced[covered] = _trace(
        scene, hits.smooth[first], hits.flat[first], start, key, radius, patterns, shift
    )
    normal = np.zeros((rows, columns, 3), np.float32)
    point = np.zeros((rows, columns, 3), np.float32)
    seen = np.zeros((rows, columns), bool)
    normal[row, column], point[row, column] = hits.smooth[first], hits.point[first]
    seen[row, column] = True
    near = _SAME_SURFACE * scene.size
    filtered = filter_factors(traced.reshape(rows, columns, 2), normal, point, seen, 5 * near, size)
    return matching_factors(filtered, normal, point, seen, pixel, hits.smooth, hits.point, near)


def _ray_origins(
    scene: Scene, hits: Hits, first: NDArray[np.int64]
) -> NDArray[np.float32]:  # [P, 3]
    """Return where secondary rays start: on the curved surface, unless another is in between.

    In a fold the curved surface of a coarse mesh reaches through the opposite wall; rays from
    there would see the light.
    """
    point, origin = hits.point[first], hits.origin[first]
    moved = np.linalg.norm(origin - point, axis=1)
    offset = _RAY_OFFSET * scene.size
    far = np.flatnonzero(moved > offset / 4)
    start = point[far] + hits.flat[first[far]] * np.float32(offset)
    blocked = scene.rays.occluded(start, origin[far] - point[far], moved[far] + 2 * offset)
    origin[far[blocked]] = point[far[blocked]]
    return origin


def _trace(
    scene: Scene,
    smooth: NDArray[np.float32],  # [P, 3]
    flat: NDArray[np.float32],  # [P, 3]
    start: NDArray[np.float32],  # [P, 3]
    key: NDArray[np.float32],  # [3]
    radius: float,
    patterns: tuple[NDArray[np.float32], NDArray[np.float32]],
    shift: NDArray[np.float32],  # [P, 2]
) -> NDArray[np.float32]:
    """Return the visible part `[P, 2]` of the sky and of the key light."""
    factors = np.ones((len(smooth), 2), np.float32)
    reach = _AMBIENT_REACH * scene.size
    start = start + flat * np.float32(_RAY_OFFSET * scene.size)
    ambient_pattern, shadow_pattern = patterns
    right = np.cross(key, [0.0, 1.0, 0.0] if abs(key[1]) < 0.9 else [1.0, 0.0, 0.0])
    right = (right / np.linalg.norm(right)).astype(np.float32)
    up = np.cross(key, right).astype(np.float32)
    lit = np.flatnonzero(smooth @ key > 0)
    if len(ambient_pattern):
        for part in _groups(np.arange(len(smooth)), len(ambient_pattern)):
            directions = hemisphere_directions(
                smooth[part], flat[part], shift[part], ambient_pattern
            )
            factors[part, 0] = _open_share(scene, start[part], directions, reach)
    for part in _groups(lit, len(shadow_pattern)):
        directions = light_directions(key, right, up, radius, shift[part], shadow_pattern)
        factors[part, 1] = _open_share(scene, start[part], directions, np.inf)
    return factors


def _groups(points: NDArray[np.int64], rays: int) -> Iterator[NDArray[np.int64]]:
    size = max(_GROUP_RAYS // rays, 1)
    for begin in range(0, len(points), size):
        yield points[begin : begin + size]


def _open_share(
    scene: Scene,
    start: NDArray[np.float32],  # [P, 3]
    directions: NDArray[np.float32],  # [P, K, 3]
    reach: float,
) -> NDArray[np.floating]:
    count = directions.shape[1]
    origins = np.repeat(start, count, axis=0)
    blocked = scene.rays.occluded(origins, directions.reshape(-1, 3), reach)
    return 1 - blocked.reshape(-1, count).mean(axis=1, dtype=np.float32)
