"""Clay renders of a mesh on transparent ground, by ray casting on the CPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultrashape_cli.files import temporary_path
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.rendering.cameras import Camera
from ultrashape_cli.rendering.shading import (
    CLAY_ALBEDO,
    KEY_RADIUS,
    corner_normals,
    filter_factors,
    hammersley,
    hemisphere_directions,
    light_axes,
    light_directions,
    pixel_shifts,
    shade,
    surface_points,
    to_srgb,
)

# Rows of pixels are rendered in bands of about this many subsamples, to bound memory.
_BAND_SAMPLES = 1 << 19
# Visibility is sampled once a pixel and averaged over windows of this side.
_FILTER_SIZE = 4
# Reach of ambient occlusion and offset of secondary rays, as parts of the mesh's longest side.
_AMBIENT_REACH = 0.25
_RAY_OFFSET = 2e-4


def render_views(
    mesh: Mesh,
    cameras: Iterable[Camera],
    *,
    supersample: int = 2,
    ambient_rays: int = 8,
    shadow_rays: int = 4,
    seed: int = 0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield one image `[H, W, 4]` for each camera: sRGB with straight alpha, ground transparent.

    The key light stands above the left shoulder of each camera. The same arguments give the same
    bytes.

    Args:
        mesh: The surface; both of its sides are visible.
        cameras: Views of the mesh, in its frame.
        supersample: Subsamples of a pixel along each axis.
        ambient_rays: Rays for ambient occlusion, for each pixel.
        shadow_rays: Rays to the key light, for each pixel.
        seed: Seed of the sample patterns.
    """
    scene = _Scene(mesh)
    shifts = pixel_shifts(_FILTER_SIZE, seed)
    for camera in cameras:
        yield _render(scene, camera, supersample, ambient_rays, shadow_rays, shifts)


def save_png(image: NDArray[np.uint8], path: str | Path) -> None:
    """Write an image `[H, W, 4]` as PNG; the file is replaced in one step.

    Raises:
        DiskError: The folder cannot be written.
    """
    with temporary_path(Path(path)) as temporary:
        # Level 3: two thirds of the default's time for a few per cent more bytes.
        Image.fromarray(image).save(temporary, format="PNG", compress_level=3)


class _Scene:
    """What all views of a mesh share."""

    def __init__(self, mesh: Mesh) -> None:
        self.rays = RayScene(mesh)
        self.vertices = mesh.vertices
        self.faces = mesh.faces
        self.corners = corner_normals(mesh)
        self.bounds = mesh.bounds
        self.size = float(mesh.extents.max())


class _Layers:
    """Buffers of one view: what each subsample sees, and the visibilities of each pixel."""

    def __init__(self, height: int, width: int, subsamples: int) -> None:
        self.hit = np.zeros((height, width, subsamples), bool)
        self.normal = np.zeros((height, width, subsamples, 3), np.float32)
        # Of the first subsample of a pixel that hits; depth 0 marks background.
        self.depth = np.zeros((height, width), np.float32)
        self.pixel_normal = np.zeros((height, width, 3), np.float32)
        self.factors = np.zeros((height, width, 2), np.float32)


def _render(
    scene: _Scene,
    camera: Camera,
    supersample: int,
    ambient_rays: int,
    shadow_rays: int,
    shifts: NDArray[np.float32],
) -> NDArray[np.uint8]:
    top, bottom, left, right = _window(scene, camera)
    image = np.zeros((camera.height, camera.width, 4), np.uint8)
    if top >= bottom or left >= right:
        return image
    subsamples = supersample * supersample
    layers = _Layers(bottom - top, right - left, subsamples)
    rotation = camera.world_to_camera[:3, :3].T
    lights = light_axes(rotation)
    patterns = hammersley(ambient_rays), hammersley(shadow_rays)
    step = max(1, _BAND_SAMPLES // ((right - left) * subsamples))
    bands = [slice(row, min(row + step, bottom - top)) for row in range(0, bottom - top, step)]
    for rows in bands:
        pixels = _grid(top + rows.start, top + rows.stop, left, right, supersample)
        _cast(scene, camera, layers, rows, pixels, lights, patterns, shifts)
    near = 0.01 * scene.size
    factors = filter_factors(layers.factors, layers.pixel_normal, layers.depth, near, _FILTER_SIZE)
    for rows in bands:
        hit = layers.hit[rows]
        pixels = _grid(top + rows.start, top + rows.stop, left, right, supersample)
        per_sample = np.broadcast_to(factors[rows][:, :, None], (*hit.shape, 2))[hit]
        view = camera.rays(pixels[hit]).astype(np.float32)
        linear = np.zeros(hit.shape, np.float32)
        linear[hit] = shade(
            layers.normal[rows][hit], view, lights, per_sample[:, 0].copy(),
            per_sample[:, 1].copy(), CLAY_ALBEDO,
        )  # fmt: skip
        count = hit.sum(axis=2)
        grey = to_srgb(linear.sum(axis=2) / np.maximum(count, 1)) * 255 + 0.5
        part = image[top:bottom, left:right][rows]
        part[..., :3] = np.where(count > 0, grey, 0).astype(np.uint8)[..., None]
        part[..., 3] = (count * 255 + subsamples // 2) // subsamples
    return image


def _window(scene: _Scene, camera: Camera) -> tuple[int, int, int, int]:
    """Return the rows and columns that the bounding box can cover: top, bottom, left, right."""
    corners = np.stack(np.meshgrid(*scene.bounds.T, indexing="ij"), axis=-1).reshape(-1, 3)
    pixels, depth = camera.project(corners)
    if (depth <= 0).any():
        return 0, camera.height, 0, camera.width
    low = np.floor(pixels.min(axis=0)).astype(int)
    high = np.ceil(pixels.max(axis=0)).astype(int) + 1
    left, right = np.clip([low[0], high[0]], 0, camera.width).tolist()
    top, bottom = np.clip([low[1], high[1]], 0, camera.height).tolist()
    return top, bottom, left, right


def _grid(top: int, bottom: int, left: int, right: int, supersample: int) -> NDArray[np.float64]:
    """Return image coordinates `[rows, columns, subsamples, 2]` of the subsamples."""
    offset = (np.arange(supersample) + 0.5) / supersample
    y = np.arange(top, bottom)[:, None, None, None] + offset[:, None]
    x = np.arange(left, right)[None, :, None, None] + offset[None, :]
    grid = np.stack(np.broadcast_arrays(x, y), axis=-1)
    return grid.reshape(bottom - top, right - left, supersample * supersample, 2)


def _cast(
    scene: _Scene,
    camera: Camera,
    layers: _Layers,
    rows: slice,
    pixels: NDArray[np.float64],  # [h, w, S, 2]
    lights: NDArray[np.float32],
    patterns: tuple[NDArray[np.float32], NDArray[np.float32]],
    shifts: NDArray[np.float32],
) -> None:
    """Fill a band of rows: primary rays for each subsample, visibilities for each pixel."""
    directions = camera.rays(pixels.reshape(-1, 2)).astype(np.float32)
    origins = np.broadcast_to(camera.position, directions.shape)
    distance, face, uv = scene.rays.first_hit(origins, directions)
    seen = np.flatnonzero(face >= 0)
    hit = (face >= 0).reshape(pixels.shape[:3])
    layers.hit[rows] = hit
    if len(seen) == 0:
        return
    _, smooth, flat, start = surface_points(
        scene.faces, scene.vertices, scene.corners, face[seen], uv[seen], directions[seen]
    )
    layers.normal[rows][hit] = smooth

    # The first subsample that hits stands for its pixel.
    number_of = np.full(face.shape, -1, np.int64)
    number_of[seen] = np.arange(len(seen))
    any_hit = hit.any(axis=2)
    first = np.take_along_axis(
        number_of.reshape(hit.shape), np.argmax(hit, axis=2)[..., None], axis=2
    )[..., 0][any_hit]
    layers.depth[rows][any_hit] = distance[seen[first]]
    layers.pixel_normal[rows][any_hit] = smooth[first]
    y, x = np.nonzero(any_hit)
    size = len(shifts)
    shift = shifts[(y + rows.start) % size, x % size]
    layers.factors[rows][any_hit] = _visibilities(
        scene, smooth[first], flat[first], start[first], lights[0], patterns, shift
    )


def _visibilities(
    scene: _Scene,
    smooth: NDArray[np.float32],  # [P, 3]
    flat: NDArray[np.float32],  # [P, 3]
    start: NDArray[np.float32],  # [P, 3]
    key: NDArray[np.float32],  # [3]
    patterns: tuple[NDArray[np.float32], NDArray[np.float32]],
    shift: NDArray[np.float32],  # [P, 2]
) -> NDArray[np.float32]:
    """Return the visible part `[P, 2]` of the sky and of the key light."""
    factors = np.ones((len(smooth), 2), np.float32)
    start = start + flat * np.float32(_RAY_OFFSET * scene.size)
    ambient_pattern, shadow_pattern = patterns
    if len(ambient_pattern):
        directions = hemisphere_directions(smooth, shift, ambient_pattern)
        reach = _AMBIENT_REACH * scene.size
        factors[:, 0] = 1 - _blocked_share(scene, start, directions, reach)
    lit = np.flatnonzero(smooth @ key > 0)
    if len(shadow_pattern) and len(lit):
        right = np.cross(key, [0.0, 1.0, 0.0] if abs(key[1]) < 0.9 else [1.0, 0.0, 0.0])
        right = (right / np.linalg.norm(right)).astype(np.float32)
        up = np.cross(key, right).astype(np.float32)
        directions = light_directions(key, right, up, KEY_RADIUS, shift[lit], shadow_pattern)
        factors[lit, 1] = 1 - _blocked_share(scene, start[lit], directions, np.inf)
    return factors


def _blocked_share(
    scene: _Scene,
    start: NDArray[np.float32],  # [P, 3]
    directions: NDArray[np.float32],  # [P, K, 3]
    reach: float,
) -> NDArray[np.floating]:
    count = directions.shape[1]
    origins = np.repeat(start, count, axis=0)
    blocked = scene.rays.occluded(origins, directions.reshape(-1, 3), reach)
    return blocked.reshape(-1, count).mean(axis=1)
