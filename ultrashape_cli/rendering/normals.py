"""Smooth normals that keep creases."""

import math

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.rows import first_equal_rows

# Faces that meet at more than this angle keep a visible edge.
CREASE_DEGREES = 40.0


def corner_normals(mesh: Mesh, crease_degrees: float = CREASE_DEGREES) -> NDArray[np.float32]:
    """Return a normal for each face corner `[F, 3, 3]`: smooth inside, split along creases.

    A corner averages, by area, the faces around its vertex that turn less than the crease angle
    away from its own face. Vertices at one position count as one.
    """
    vectors = mesh.area_vectors
    # Adding zero turns -0.0 into 0.0, which have different bytes.
    keys = np.ascontiguousarray(mesh.vertices + 0.0).view(np.int64)
    faces = first_equal_rows(keys)[mesh.faces]
    starts, around = _faces_around(faces, len(mesh.vertices))
    half, whole = (math.cos(math.radians(crease_degrees * k)) for k in (0.5, 1.0))
    return _average_corners(faces, around, starts, vectors, unit(vectors), half, whole)


@kernel
def _faces_around(faces, num_vertices):
    """Return the faces of each vertex v, `around[starts[v] : starts[v + 1]]`."""
    starts = np.zeros(num_vertices + 1, np.int64)
    for f in range(len(faces)):
        for corner in range(3):
            starts[faces[f, corner] + 1] += 1
    for v in range(num_vertices):
        starts[v + 1] += starts[v]
    filled = starts[:-1].copy()
    around = np.empty(3 * len(faces), np.int64)
    for f in range(len(faces)):
        for corner in range(3):
            v = faces[f, corner]
            around[filled[v]] = f
            filled[v] += 1
    return starts, around


@kernel
def _average_corners(faces, around, starts, vectors, normals, half, whole):
    num_vertices = len(starts) - 1
    total = np.zeros((num_vertices, 3))
    is_smooth = np.zeros(num_vertices, np.bool_)
    for v in range(num_vertices):
        for k in range(starts[v], starts[v + 1]):
            for a in range(3):
                total[v, a] += vectors[around[k], a]
        length = math.sqrt(total[v, 0] ** 2 + total[v, 1] ** 2 + total[v, 2] ** 2)
        if length == 0:
            continue
        # Faces within half the crease angle of one direction are within all of it of each other.
        is_smooth[v] = True
        for a in range(3):
            total[v, a] /= length
        for k in range(starts[v], starts[v + 1]):
            g = around[k]
            cosine = (
                total[v, 0] * normals[g, 0]
                + total[v, 1] * normals[g, 1]
                + total[v, 2] * normals[g, 2]
            )
            if cosine < half:
                is_smooth[v] = False
                break
    result = np.empty((len(faces), 3, 3), np.float32)
    for f in range(len(faces)):
        for corner in range(3):
            v = faces[f, corner]
            if is_smooth[v]:
                for a in range(3):
                    result[f, corner, a] = total[v, a]
                continue
            x, y, z = 0.0, 0.0, 0.0
            for k in range(starts[v], starts[v + 1]):
                g = around[k]
                cosine = (
                    normals[f, 0] * normals[g, 0]
                    + normals[f, 1] * normals[g, 1]
                    + normals[f, 2] * normals[g, 2]
                )
                if cosine >= whole:
                    x += vectors[g, 0]
                    y += vectors[g, 1]
                    z += vectors[g, 2]
            length = math.sqrt(x * x + y * y + z * z)
            if length > 0:
                result[f, corner, 0] = x / length
                result[f, corner, 1] = y / length
                result[f, corner, 2] = z / length
            else:
                for a in range(3):
                    result[f, corner, a] = normals[f, a]
    return result
