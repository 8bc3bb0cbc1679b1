"""How much each latent token listens to each reference view.

A token is where the coarse surface is, and that has a normal: an image speaks for the tokens that
face its camera and that nothing hides from it. Legend: K views, M tokens, R voxels along a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.config.choices import ViewMode
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.rendering.cameras import towards

TEMPERATURE = 0.2
"""Of the softmax over the views' facing: 0.2 less of it gives a share of 1/e."""
SLACK = 2
"""Voxels that a token may lie below the surface and still be seen."""
SMOOTHINGS = 2
"""Averages over the 26 neighbours, so that no seam runs where the best view changes."""
LEAST_GAIN = 0.05
"""Share of what all views see that a view has to add to be worth its passes."""
_SAMPLES = 200_000


def facing(
    mesh: Mesh,
    voxels: NDArray[np.integer],  # [M, 3]
    resolution: int,
    directions: Sequence[tuple[float, float]],
) -> NDArray[np.float32]:  # [K, M]
    """Returns the cosine between each token's normal and each camera, 0 where it is not seen.

    Args:
        mesh: Coarse mesh in the normalised frame.
        voxels: Of the tokens.
        resolution: Voxels along one side of the cube [-1, 1]^3.
        directions: Azimuth and elevation of each camera, in degrees.
    """
    normals = _normals(mesh, voxels, resolution)
    centres = (voxels + 0.5) * (2 / resolution) - 1
    scene = RayScene(mesh)
    occupied = np.zeros((resolution,) * 3, np.float32)
    occupied[tuple(voxels.T)] = 1
    around = ndimage.uniform_filter(occupied, 3, mode="constant")
    found = np.empty((len(directions), len(voxels)), np.float32)
    for row, direction in zip(found, directions, strict=True):
        to_camera = towards(*direction)
        along = np.broadcast_to(to_camera, centres.shape)
        hidden = scene.occluded(centres + SLACK * (2 / resolution) * to_camera, along)
        row[:] = np.where(hidden, 0.0, np.maximum(normals @ to_camera, 0.0))
        for _ in range(SMOOTHINGS):
            field = np.zeros_like(occupied)
            field[tuple(voxels.T)] = row
            smooth = ndimage.uniform_filter(field, 3, mode="constant")
            row[:] = (smooth / np.maximum(around, 1e-6))[tuple(voxels.T)]
    return found


def useful(seen: NDArray[np.float32], most: int) -> list[int]:
    """Returns which views to ask, at most so many, in their order.

    The first stays; then whichever adds most to the best that each token is seen, until it adds
    less than `LEAST_GAIN` of what all views together see.

    Args:
        seen: `[K, M]`, from `facing`.
        most: Views.
    """
    total = float(seen.max(0).sum())
    kept, best = [0], seen[0]
    while len(kept) < min(most, len(seen)):
        gains = np.maximum(seen, best).sum(1) - best.sum()
        pick = int(gains.argmax())
        if gains[pick] <= LEAST_GAIN * total:
            break
        kept.append(pick)
        best = np.maximum(best, seen[pick])
    return sorted(kept)


def shares(seen: NDArray[np.float32], mode: ViewMode) -> NDArray[np.float32]:
    """Returns the share `[K, M]` of each view in each token, which sum to one over the views.

    Args:
        seen: `[K, M]`, from `facing`; a token that no view sees listens to all alike.
        mode: `mean` gives all views the same share everywhere.
    """
    if mode != "spatial":
        return np.full_like(seen, 1 / len(seen))
    weights = np.exp((seen - seen.max(0)) / TEMPERATURE)
    result: NDArray[np.float32] = weights / weights.sum(0)
    return result


def _normals(
    mesh: Mesh, voxels: NDArray[np.integer], resolution: int
) -> NDArray[np.float64]:  # [M, 3]
    """Returns the mean normal of the surface in each voxel; zero where it cancels or is missed."""
    points, normals, _ = sample_faces(mesh, _SAMPLES, np.random.default_rng(0))
    index = np.floor((points + 1) / 2 * resolution).astype(np.int64).clip(0, resolution - 1)
    number = np.full((resolution,) * 3, -1, np.int64)
    number[tuple(voxels.T)] = np.arange(len(voxels))
    token = number[tuple(index.T)]
    inside = token >= 0
    total = np.zeros((len(voxels), 3))
    for axis in range(3):
        sums = np.bincount(token[inside], normals[inside, axis], len(voxels))
        total[:, axis] = sums
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.maximum(length, 1e-12)
