"""Colours of vertices and faces, in whatever range a file has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Above it, numbers of a text file are bytes; below, floats of which some shine.
_MOST_OF_FLOATS = 2.0


def tint_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns colours `[N, 4]` of bytes from `[N, 3 or 4]`: opaque without alpha, white where NaN.

    Floats are 0..1 or 0..255, by the largest; 16-bit numbers are 0..65535 where any is above
    255, other integers 0..255.
    """
    found = np.full((len(values), 4), 255, np.uint8)
    if values.dtype == np.uint8:
        found[:, : values.shape[1]] = values
        return found
    scaled = values.astype(np.float64)
    known = np.isfinite(scaled).all(axis=1)
    # Some programs write bytes in wider types.
    if values.dtype == np.uint16 and values.max(initial=0) > 255:
        scaled /= 257
    elif values.dtype.kind == "f" and scaled[known].max(initial=0.0) <= _MOST_OF_FLOATS:
        scaled *= 255
    found[known, : values.shape[1]] = np.rint(np.clip(scaled[known], 0, 255))
    return found


def corner_tints(
    of_vertices: NDArray[np.uint8] | None,
    of_faces: NDArray[np.uint8] | None,
    faces: NDArray[np.int64],
    polygon: NDArray[np.int64],
) -> NDArray[np.uint8] | None:
    """Returns colours `[F, 3, 4]` of corners: those of vertices, or else of their polygon.

    Vertices of one colour only are those of a program that had to write some.

    Args:
        of_vertices: `[V, 4]` or None.
        of_faces: `[P, 4]` or None; polygons beyond are white.
        faces: `[F, 3]` vertices.
        polygon: `[F]`.
    """
    if of_faces is not None and (of_vertices is None or (of_vertices == of_vertices[:1]).all()):
        white = np.full((polygon.max(initial=0) + 1, 4), 255, np.uint8)
        return np.concatenate([of_faces, white])[polygon][:, None].repeat(3, axis=1)
    return None if of_vertices is None else of_vertices[faces]
