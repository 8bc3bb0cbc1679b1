"""A closed surface around any triangle soup, from a sparse signed distance grid."""

import logging

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid, bricks_per_axis
from ultrashape_cli.geometry.caps import cap_holes
from ultrashape_cli.geometry.check import face_components
from ultrashape_cli.geometry.inside import classify_nodes
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.scatter import mark_bricks, scatter_distances, split_triangles
from ultrashape_cli.geometry.sheets import SLAB_HALF_WIDTH, lost_pieces

logger = logging.getLogger(__name__)

MAX_RESOLUTION = 2048
MIN_RESOLUTION = 32
MAX_MEMORY_BYTES = 12 * 2**30

# Cells between the bounding box and the border of the grid: the band, and one brick of air.
_PADDING = 4
# Faces along the axes would often pass exactly through nodes of a centred grid, and such nodes have
# no side of their own. In a box with 677,000 of them, the votes took ten seconds.
_SHIFT = np.array([0.382, 0.236, 0.146])
# An edge that crosses the surface has ends whose distances sum to one cell at most; the corners of
# its cells are then within 2.07 cells. Slabs add theirs.
_BAND = 2.2
_SLAB_BAND = SLAB_HALF_WIDTH + 1.8
_PIECE_SIDE = 10.0
# Measured: distances, components, sides and the tables of marching cubes, for each brick.
_BYTES_PER_BRICK = 25_000
# Parts below this are single nodes whose side was guessed wrong.
_SPECK_FACES = 64


def remesh(
    mesh: Mesh,
    resolution: int,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> tuple[Mesh, dict[str, float | int | bool]]:
    """Return a closed mesh of a welded one, in its frame, and figures about the work.

    Holes are capped, enclosed cavities filled, sheets and plates thinner than a cell thickened to
    almost two cells.

    Args:
        mesh: Any triangles.
        resolution: Cells along the longest side, border included.
        max_memory_bytes: Refuse work that needs more.

    Raises:
        MeshError: The resolution or the memory it needs is out of bounds, or nothing is left.
    """
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        limits = f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
        raise MeshError(f"resolution {resolution} is out of range", hint=f"use {limits}")
    capped = cap_holes(mesh)
    low, high = capped.mesh.bounds
    cell = float((high - low).max()) / (resolution - 2 * _PADDING)
    origin = (low + high) / 2 - cell * (resolution / 2 + _SHIFT)
    surface = Mesh((capped.mesh.vertices - origin) / cell, capped.mesh.faces)

    pieces, _ = split_triangles(surface.triangles, _PIECE_SIDE)
    grid = _allocate(pieces, resolution, max_memory_bytes)
    grid.values[:] = _distances(pieces, _BAND, grid)
    scene = RayScene(surface)
    side, num_voted = classify_nodes(grid, scene)
    # Sides are known in all bricks; only the size of the distance is not, beyond the band. A node
    # on the surface keeps its side.
    unsigned = np.where(np.isnan(grid.values), np.float32(_BAND), grid.values)
    grid.values[:] = np.maximum(unsigned, np.float32(1e-5))
    thin = lost_pieces(surface.triangles[: len(mesh.faces)], grid, side, scene)
    grid.values *= side
    if len(thin):
        slab = _distances(thin, _SLAB_BAND, grid) - np.float32(SLAB_HALF_WIDTH)
        grid.values[:] = np.fmin(grid.values, slab)
    vertices, faces = extract_isosurface(grid, inside="negative")
    figures: dict[str, float | int | bool] = {
        "resolution": resolution,
        "bricks": len(grid.coords),
        "caps": capped.num_caps,
        "open_holes": capped.num_open,
        "voted_nodes": num_voted,
        "thickened_pieces": len(thin),
    }
    if len(faces) == 0:
        raise MeshError(
            f"nothing is left of the mesh at resolution {resolution}",
            hint="raise the resolution, or check that the mesh is not a few points",
        )
    result, figures["specks_removed"] = drop_specks(Mesh(vertices * cell + origin, faces))
    return result, figures


def drop_specks(mesh: Mesh, smallest: int = _SPECK_FACES) -> tuple[Mesh, int]:
    """Return the mesh without parts below `smallest` faces, and how many there were.

    The largest part always stays.
    """
    component = face_components(mesh.faces, len(mesh.vertices))
    size = np.bincount(component)
    keep = size >= min(smallest, size.max())
    if keep.all():
        return mesh, 0
    return mesh.with_faces(mesh.faces[keep[component]]), int((~keep).sum())


def _allocate(pieces: NDArray[np.float64], resolution: int, max_memory_bytes: int) -> BrickGrid:
    marks = np.zeros((bricks_per_axis(resolution),) * 3, bool)
    mark_bricks(pieces, max(_BAND, _SLAB_BAND), marks)
    needed = int(marks.sum()) * _BYTES_PER_BRICK
    logger.debug("remesh: %d bricks, about %.2f GiB", marks.sum(), needed / 2**30)
    if needed > max_memory_bytes:
        raise MeshError(
            f"resolution {resolution} needs about {needed / 2**30:.1f} GiB for this mesh, "
            f"the limit is {max_memory_bytes / 2**30:.1f}",
            hint=f"use resolution {resolution // 2}",
        )
    return BrickGrid.allocate(resolution, np.argwhere(marks))


def _distances(
    pieces: NDArray[np.float64],  # [P, 3, 3]
    band: float,
    grid: BrickGrid,
) -> NDArray[np.float32]:
    """Return unsigned distances `[B, 512]` in cells; NaN beyond the band."""
    squared = np.full(grid.values.shape, np.float32(band * band))
    scatter_distances(pieces, band, grid.index, squared)
    distances = np.sqrt(squared)
    distances[squared >= np.float32(band * band)] = np.nan
    return distances
