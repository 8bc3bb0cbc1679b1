"""A coarse mesh from outlines alone: no network, no weights.

Several views are carved: a point belongs to the shape where it lies within every outline. One view
is blown up: the union of all balls that fit into the outline, centred in its plane. An outline says
nothing of hollows, nor of what lies behind: the result has the right shadow and a guessed depth.
All is in the normalised frame, y up and the front towards +z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.errors import ImageError
from ultrashape_cli.geometry.bricks import BrickGrid, all_nodes
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.rendering.cameras import towards

CELLS = 96
"""Cells along a side of the grid that a shape is carved from."""
_SIDE = 1.1
"""Half of that side; an outline is at most 1 from its middle."""
_PIXELS = 192
"""Pixels along the longer side of an outline."""
_MARGIN = 8
"""Pixels around an outline."""
_BOUND = 2.0

Mask = NDArray[np.bool_]  # [H, W]


def hull(masks: Sequence[Mask], directions: Sequence[tuple[float, float]]) -> Mesh:
    """Returns the shape that outlines allow, closed.

    Cameras are taken to be far away. Outlines of elevations below 45 degrees are brought to one
    height, others to the width of the first: pictures need not be of one scale.

    Args:
        masks: True where the object is.
        directions: Azimuth and elevation of each, in degrees; 0, 0 is the front.

    Raises:
        ImageError: An outline is empty, or they have no point in common.
    """
    fields = [_distances(mask) for mask in masks]
    if len(fields) == 1:
        values = _blown_up(*fields[0], directions[0])
    else:
        values = _carved(fields, directions)
    nodes = all_nodes(CELLS)
    if not (values > 0).any():
        raise ImageError(
            "the outlines have no point in common: no shape casts all of them",
            hint="check which side each image shows",
        )
    vertices, faces = extract_isosurface(
        BrickGrid.from_nodes(CELLS, nodes, values.clip(-_BOUND, _BOUND)), inside="positive"
    )
    mesh = Mesh(_SIDE * (2 * vertices / CELLS - 1), faces)
    return Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)


def _distances(mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns an outline's signed distance, positive inside, and its half width and height.

    The field [H, W] has a margin; lengths are in units of half the outline's longer side.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        raise ImageError("an outline is empty: the image shows no object")
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = np.array([part.shape[1], part.shape[0]]) / max(part.shape)
    part = _thickened(_shrunk(part))
    scale = _PIXELS / max(part.shape)
    padded = np.pad(part, math.ceil(_MARGIN / scale))
    inner = ndimage.distance_transform_edt(padded)
    outer = ndimage.distance_transform_edt(~padded)
    signed = inner - outer + np.where(padded, -0.5, 0.5)
    # The distances rather than the mask are brought to size: they lie between its pixels too.
    field = ndimage.zoom(signed, scale, order=1, mode="nearest", grid_mode=True)
    return field * (2 / max(part.shape)), half


def _shrunk(mask: Mask) -> Mask:
    """Returns a mask of at most three times the pixels that are needed, with all its thin parts."""
    factor = max(mask.shape) // (2 * _PIXELS)
    if factor < 2:
        return mask
    rows, columns = (-(-side // factor) for side in mask.shape)
    padded = np.zeros((rows * factor, columns * factor), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(rows, factor, columns, factor).any(axis=(1, 3)))


def _thickened(mask: Mask) -> Mask:
    """Returns a mask whose thin parts are as thick as the grid needs: others fall between nodes."""
    radius = 0.75 * max(mask.shape) * _SIDE / CELLS
    padded = np.pad(mask, math.ceil(radius) + 1)
    core = ndimage.distance_transform_edt(padded) > radius
    if core.any():
        beyond = ndimage.distance_transform_edt(~core) - radius
    else:
        beyond = np.full(padded.shape, np.inf)
    labels, count = ndimage.label(padded & (beyond > 0), np.ones((3, 3)))
    # The tips of corners are thin as well, but do not reach far.
    reach = ndimage.maximum(beyond, labels, np.arange(count + 1))
    thin = (labels > 0) & (np.atleast_1d(reach) > 1.5 * radius)[labels]
    if thin.any():
        padded = padded | (ndimage.distance_transform_edt(~thin) <= radius)
    inner = math.ceil(radius) + 1
    return np.asarray(padded[inner:-inner, inner:-inner])


def _sampled(
    field: NDArray[np.float64], across: NDArray[np.float64], up: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns an outline's field at places in units of half its longer side, its middle at 0."""
    rows, columns = field.shape
    place = np.stack([(rows - 1) / 2 - up * _PIXELS / 2, (columns - 1) / 2 + across * _PIXELS / 2])
    found: NDArray[np.float64] = ndimage.map_coordinates(field, place, order=1, mode="nearest")
    # Beyond the margin it goes on falling.
    beyond = np.maximum(np.abs(place[0] - (rows - 1) / 2) - (rows - 1) / 2, 0)
    beyond += np.maximum(np.abs(place[1] - (columns - 1) / 2) - (columns - 1) / 2, 0)
    return found - beyond * (2 / _PIXELS)


def _axes(direction: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the directions that run right and up in a picture from there."""
    forward = -towards(*direction)
    turn = np.radians(direction[0])
    right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    return right, np.cross(right, forward)


def _carved(
    fields: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    directions: Sequence[tuple[float, float]],
) -> NDArray[np.float64]:  # [N]
    points = _SIDE * (2 * all_nodes(CELLS) / CELLS - 1)
    first = fields[0][1]
    # The largest of what the outlines say of the shape is 1 in each direction.
    height = 1.0
    sizes = []
    for (_, half), direction in zip(fields, directions, strict=True):
        upright = abs(direction[1]) < 45
        sizes.append(height / half[1] if upright else height * first[0] / first[1] / half[0])
    largest = max(size * half.max() for size, (_, half) in zip(sizes, fields, strict=True))
    values = np.full(len(points), np.inf)
    for (field, _), direction, size in zip(fields, directions, sizes, strict=True):
        right, up = _axes(direction)
        unit = size / largest
        values = np.minimum(
            values, unit * _sampled(field, points @ right / unit, points @ up / unit)
        )
    return values


def _blown_up(
    field: NDArray[np.float64], half: NDArray[np.float64], direction: tuple[float, float]
) -> NDArray[np.float64]:  # [N]
    """Returns how far points are inside the union of balls that an outline holds."""
    squared = _envelope(np.where(field > 0, field, 0.0))
    # At the rim and outside it falls as steeply as it rises within. With a bend there the surface
    # would lie at nodes of the grid instead of between them, in steps.
    deep = field > min(1 / _PIXELS, field.max() / 2)
    slope = np.divide(squared, field, out=np.zeros_like(field), where=deep)
    inwards = ndimage.distance_transform_edt(~deep, return_distances=False, return_indices=True)
    squared = np.where(deep, squared, field * slope[tuple(inwards)])
    points = _SIDE * (2 * all_nodes(CELLS) / CELLS - 1)
    right, up = _axes(direction)
    depth = points @ towards(*direction)
    return _sampled(squared, points @ right, points @ up) - np.square(depth)


def _envelope(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the square of the height of the balls above each pixel [H, W].

    The largest of r(p)^2 - |x - p|^2 over all p, first along columns, then along rows.
    """
    found = np.square(radius)
    for axis in (0, 1):
        best = found.copy()
        for shift in range(1, radius.shape[axis]):
            drop = (shift * 2 / _PIXELS) ** 2
            if drop > found.max():
                break
            low = np.moveaxis(best, axis, 0)
            source = np.moveaxis(found, axis, 0) - drop
            np.maximum(low[shift:], source[:-shift], out=low[shift:])
            np.maximum(low[:-shift], source[shift:], out=low[:-shift])
        found = best
    return found
