"""The side of an asset that is its front, where its symmetry shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ultrashape_cli.config.choices import FrontAxis
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Front, Up, fit_frame
from ultrashape_cli.geometry.surface import sample_faces

_SAMPLES = 10_000
# Mean distance of a surface to its mirror image, beside its longest side, up to which left and
# right are alike, and how many times farther the image across the other axis must be. Vehicles and
# animals along x measured 0.003 to 0.01 and 3.6 to 8 times; what has no front, below 1.1 times.
_ALIKE, _CLEARER = 0.02, 2.0


def front_axis(setting: FrontAxis, mesh: Mesh, up: Up) -> Front:
    """Return the axis that the front looks along, from an axis or `auto`.

    `auto` is z, as modelling programs have it, but x where the two sides of that are mirror images
    and those of z are not. Of the 13 shared meshes with a front it finds 11, z alone 8; the
    largest silhouette 4.

    Args:
        setting: `z`, `-z`, `x`, `-x` or `auto`.
        mesh: In any frame.
        up: Axis of the mesh that points up.
    """
    if setting != "auto":
        return setting
    placed = Mesh(fit_frame(mesh, 1.0, up).to_normalised(mesh.vertices), mesh.faces)
    points = sample_faces(placed, _SAMPLES, np.random.default_rng(0))[0]
    across_x, across_z = (_asymmetry(points, axis) for axis in (0, 2))
    return "x" if across_z <= _ALIKE and across_x > _CLEARER * across_z else "z"


def _asymmetry(points: NDArray[np.float64], axis: int) -> float:
    """Return the mean distance of points around the origin to their mirror images."""
    mirrored = points.copy()
    mirrored[:, axis] *= -1
    return float(cKDTree(points).query(mirrored)[0].mean())
