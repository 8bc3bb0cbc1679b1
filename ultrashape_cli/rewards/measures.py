"""Rewards of one mesh: pure functions, each of which is higher for a better mesh.

Meshes are in the normalised frame, the cube [-1, 1]^3. Where a figure is unbounded a logarithm
makes equal ratios equal steps, so that the same spread means about the same in every reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import Topology
from ultrashape_cli.geometry.crossings import crossing_share
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.inference.acceptance import Outlines
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.maps import view_maps
from ultrashape_cli.rendering.scene import Scene

TAU = 0.01
"""Distance of the F-score: half a percent of the cube's side."""
SMALLEST_CHAMFER = 1e-6
"""Chamfer distance below which nothing is gained."""
THICK = 0.04
"""Wall, a fiftieth of the cube's side, beyond which thicker is not better: without an end to it,
the reward would be highest for a blob."""
THIN_SHARE = 0.01
"""Share of the surface whose walls count as the thinnest: a single ray says little."""
_RAYS = 4096
_LIFT = 1e-4
"""How far inside the surface rays start, in cube units."""
_VIEW = 192
"""Pixels along one side of the views whose normals are compared."""


class Picture(NamedTuple):
    """An image and the direction it was seen from, in degrees (0, 0 is the front)."""

    rgba: NDArray[np.uint8]  # [H, W, 4]
    azimuth: float = 0.0
    elevation: float = 0.0


def chamfer_reward(chamfer_l1: float) -> float:
    """Returns -log of a Chamfer-L1 distance in cube units (`compare_meshes`), about -1 to 13.8."""
    return -math.log(max(chamfer_l1, SMALLEST_CHAMFER))


def parts_reward(found: Topology, expected: int = 1) -> float:
    """Returns -log2(1 + n) of n parts beyond those expected, at most 0.

    Args:
        found: Topology of the mesh.
        expected: Parts of the truth or of the input; a single one where there is neither.
    """
    return -math.log2(1 + max(found.components - max(expected, 1), 0))


def open_edges_reward(found: Topology, num_faces: int) -> float:
    """Returns minus the percentage of open edges in 3/2 of the faces, -200 to 0.

    A closed mesh of F faces has 3/2 F edges; one of loose triangles has twice as many, all open.
    """
    return -100.0 * found.boundary_edges / max(1.5 * num_faces, 1.0)


def genus_reward(found: Topology, expected: float = 0.0) -> float | None:
    """Returns -log2(1 + |jump|) of handles gained or lost, at most 0; None of an open mesh.

    Args:
        found: Topology of the mesh.
        expected: Handles of the truth or of the input.
    """
    if not found.watertight:
        return None
    return -math.log2(1 + abs(found.genus - expected))


def crossings_reward(mesh: Mesh) -> float | None:
    """Returns minus the percentage of faces that cross another, -100 to 0.

    None where pymeshlab cannot load.
    """
    share = crossing_share(mesh)
    return None if share is None else -100.0 * share


def thickness_reward(mesh: Mesh, seed: int = 0) -> float:
    """Returns how thick the thinnest walls are, 0 to 1: `THICK` and more is 1.

    Rays go from the surface straight inwards to where they leave the mesh; what counts is the
    quantile `THIN_SHARE` of their lengths. Rays that leave nowhere, of open meshes, are left out;
    a mesh without any other has no wall, and 0.

    Raises:
        DependencyError: embreex does not load.
    """
    points, normals, _ = sample_faces(mesh, _RAYS, np.random.default_rng(seed))
    distance, _, _ = RayScene(mesh).first_hit(points - _LIFT * normals, -normals)
    walls = distance[np.isfinite(distance)]
    if not len(walls):
        return 0.0
    return min(float(np.quantile(walls, THIN_SHARE)) + _LIFT, THICK) / THICK


def silhouette_reward(outlines: Outlines, views: Sequence[Picture]) -> float:
    """Returns the mean overlap (intersection over union) with the outlines of images, 0 to 1."""
    return _mean([outlines.likeness(v.rgba, v.azimuth, v.elevation).silhouette for v in views])


def shading_reward(outlines: Outlines, views: Sequence[Picture]) -> float:
    """Returns the mean correlation of light and shade with images, -1 to 1.

    Where there is no truth, shade is what a picture says of normals (`inference.acceptance`).
    """
    return _mean([outlines.likeness(v.rgba, v.azimuth, v.elevation).shading for v in views])


def view_normals_reward(mesh: Mesh, truth: Mesh, views: Sequence[Picture]) -> float | None:
    """Returns the mean cosine with the truth's normals as seen in the views, -1 to 1.

    Only pixels count that both cover; None where they share none.
    """
    radius = bounding_radius(truth)
    scenes = Scene(mesh), Scene(truth)
    cosines = []
    for view in views:
        camera = camera_at(view.azimuth, view.elevation, radius=radius, size=_VIEW)
        ours, theirs = (view_maps(scene, camera, 1)[0] for scene in scenes)
        both = (ours["mask"] > 0) & (theirs["mask"] > 0)
        a, b = (unit(maps["normal"][both][:, :3] / 127.5 - 1) for maps in (ours, theirs))
        cosines.append((a * b).sum(1))
    every = np.concatenate(cosines)
    return float(every.mean()) if len(every) else None


def faces_reward(num_faces: int) -> float:
    """Returns -log2 of the number of faces, at most 0: every doubling costs as much."""
    return -math.log2(max(num_faces, 1))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
