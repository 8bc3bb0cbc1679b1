"""Consistent winding of faces."""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import face_components
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh


def orient_outward(mesh: Mesh) -> Mesh:
    """Return a welded mesh whose neighbouring faces agree, turned so that it encloses volume.

    Parts that were consistent keep their relation to each other, so that a cavity stays a cavity.
    A Moebius strip, or faces that meet only at edges of three or more, cannot be made to agree.
    """
    flip = _spread(_adjacency(mesh.faces), len(mesh.faces))
    if flip.any():
        faces = np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces)
        component = face_components(faces, len(mesh.vertices))
        centre = mesh.bounds.mean(axis=0)
        a, b, c = ((mesh.vertices - centre)[faces[:, k]] for k in range(3))
        volume = np.bincount(component, np.einsum("ij,ij->i", a, np.cross(b, c, axis=1)))
        touched = np.bincount(component, flip) > 0
        inverted = (touched & (volume < 0))[component]
        faces = np.where(inverted[:, None], faces[:, ::-1], faces)
        mesh = Mesh(mesh.vertices, np.ascontiguousarray(faces))
    return mesh.flipped() if mesh.volume < 0 else mesh


def _adjacency(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `[A, 3]`: two faces at an edge of exactly two, and whether they disagree."""
    start = faces.ravel()
    end = np.roll(faces, -1, axis=1).ravel()
    count = int(faces.max(initial=0)) + 1
    key = np.minimum(start, end) * np.int64(count) + np.maximum(start, end)
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    first = np.flatnonzero(np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]]))
    first = first[np.diff(np.append(first, len(order))) == 2]
    one, two = order[first], order[first + 1]
    disagree = (start[one] > end[one]) == (start[two] > end[two])
    return np.stack([one // 3, two // 3, disagree.astype(np.int64)], axis=1)


@kernel
def _spread(pairs, num_faces):
    """Return which faces to flip `[F]` so that neighbours agree with the first of their part."""
    offset = np.zeros(num_faces + 1, np.int64)
    for i in range(len(pairs)):
        offset[pairs[i, 0] + 1] += 1
        offset[pairs[i, 1] + 1] += 1
    offset = np.cumsum(offset)
    fill = offset[:-1].copy()
    link = np.empty((2 * len(pairs), 2), np.int64)
    for i in range(len(pairs)):
        for k in range(2):
            f = pairs[i, k]
            link[fill[f], 0] = pairs[i, 1 - k]
            link[fill[f], 1] = pairs[i, 2]
            fill[f] += 1
    state = np.full(num_faces, -1, np.int8)
    stack = np.empty(num_faces, np.int64)
    for seed in range(num_faces):
        if state[seed] >= 0:
            continue
        state[seed] = 0
        stack[0] = seed
        depth = 1
        while depth > 0:
            depth -= 1
            f = stack[depth]
            for k in range(offset[f], offset[f + 1]):
                other = link[k, 0]
                if state[other] < 0:
                    state[other] = state[f] ^ link[k, 1]
                    stack[depth] = other
                    depth += 1
    return state == 1
