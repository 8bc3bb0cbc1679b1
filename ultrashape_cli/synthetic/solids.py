"""Parts to one closed mesh in the cube, as it is or varied."""

from __future__ import annotations

import numpy as np
import scipy.sparse.csgraph
from numpy.typing import NDArray
from scipy.sparse import coo_array

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.blends import Part, Shape, blend_mesh, find_frame, turn_up

HALF_SIDE = 0.95
"""Half the longest side of a shape's box."""


def fit(mesh: Mesh, half: float = HALF_SIDE) -> Mesh:
    """Returns the mesh with its box around the origin, its longest side twice `half`."""
    low, high = mesh.bounds
    scale = 2 * half / (high - low).max()
    return Mesh.from_arrays((mesh.vertices - (low + high) / 2) * scale, mesh.faces)


def solid_mesh(parts: list[Part], resolution: int) -> Mesh:
    """Returns the largest closed surface of the joined parts, of any size and place.

    What floats beside it and holes sealed inside it are left out.
    """
    mesh = blend_mesh(parts, resolution, find_frame(parts))
    label = _pieces(mesh)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    volume = np.bincount(label, np.einsum("ij,ij->i", a, np.cross(b, c)))
    return mesh.with_faces(mesh.faces[label == volume.argmax()])


def _pieces(mesh: Mesh) -> NDArray[np.int32]:
    """Returns the number of the connected piece of each face."""
    count = len(mesh.vertices)
    ends = np.concatenate([mesh.faces[:, :2], mesh.faces[:, 1:]])
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (count, count))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1][mesh.faces[:, 0]]


def varied_mesh(parts: list[Part], rng: np.random.Generator, resolution: int) -> Mesh:
    """Returns the joined parts cut, stretched, turned and shrunk at random; closed.

    Half of them are cut by one or two planes near the middle, which leaves caps. Each axis is
    stretched by up to 28 %, the whole is turned by any rotation and shrunk by up to a third.
    """
    mesh = solid_mesh(parts, resolution)
    if rng.random() < 0.5:
        low, high = mesh.bounds
        cuts = [_cut(rng, (low + high) / 2, high - low) for _ in range(rng.integers(1, 3))]
        mesh = solid_mesh([*parts, *cuts], resolution)
    stretch = np.exp(rng.uniform(-1, 1, 3) * np.log(1.28))
    rotation, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    # Uniform over rotations: signs as in a unique decomposition, and no reflection.
    rotation = rotation * np.sign(np.diag(upper))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    turned = Mesh.from_arrays((mesh.vertices * stretch) @ rotation.T, mesh.faces)
    return fit(turned, HALF_SIDE * rng.uniform(0.67, 1.0))


def _cut(
    rng: np.random.Generator, centre: NDArray[np.float64], extents: NDArray[np.float64]
) -> Part:
    """Returns a half-space that takes away up to half of a box, from any side."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    # Half of the box's width along the direction, as if it were an ellipsoid.
    reach = 0.5 * float(np.linalg.norm(extents * direction))
    at = centre - direction * reach * rng.uniform(0.05, 0.6)
    return Part(
        shape=Shape.HALF_SPACE,
        centre=tuple(at),
        size=(1, 1, 1),
        rotation=turn_up(direction),
        cut=True,
    )
