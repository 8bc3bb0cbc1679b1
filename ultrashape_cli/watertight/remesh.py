"""A closed surface around any triangle soup, from a sparse signed distance grid."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid, bricks_per_axis
from ultrashape_cli.geometry.check import part_volumes, vertex_components
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.watertight.caps import Capped, cap_holes
from ultrashape_cli.watertight.features import snap_to_edges
from ultrashape_cli.watertight.inside import classify_nodes
from ultrashape_cli.watertight.scatter import mark_bricks, scatter_distances, split_triangles
from ultrashape_cli.watertight.sheets import SLAB_HALF_WIDTH, lost_pieces, narrow_slabs, on_slab
from ultrashape_cli.watertight.tunnels import close_tunnels

logger = logging.getLogger(__name__)

Holes = Literal["lids", "strips", "none"]

MAX_RESOLUTION = 2048
MIN_RESOLUTION = 16
MAX_MEMORY_BYTES = 12 * 2**30

# Cells between the bounding box and the border of the grid: the band, and one brick of air.
_PADDING = 4
# Faces along the axes would often pass exactly through nodes of a centred grid, and such nodes have
# no side of their own. In a box with 677,000 of them, the votes took ten seconds.
_SHIFT = np.array([0.382, 0.236, 0.146])
# An edge that crosses the surface has ends whose distances sum to one cell at most, and only such
# edges need exact distances. The corners of its cells, whose sides are needed too, are within 2.07
# cells. Slabs add theirs.
_BAND = 1.05
_SLAB_BAND = SLAB_HALF_WIDTH + 1.05
_REACH = SLAB_HALF_WIDTH + 1.8
_PIECE_SIDE = 10.0
# Measured at 2048, where the process peaked at 3.8 GiB: distances, components, sides, the tables of
# marching cubes, the faces and their check.
_BYTES_PER_MISSING_BRICK = 16
_BYTES_PER_BRICK = 22_000
# Parts below this are single nodes whose side was guessed wrong.
_SPECK_FACES = 64


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A closed mesh around another one, with what is needed to judge it.

    Attributes:
        mesh: The result in node-index units.
        origin, cell: Position of node (0, 0, 0) and length of a cell, in units of the input.
        scene: The input with lids on its holes, in node-index units.
        bare: The input without lids.
        figures: Plain figures about the work.
    """

    mesh: Mesh
    origin: NDArray[np.float64]
    cell: float
    scene: RayScene
    bare: RayScene
    figures: dict[str, float | int | bool]

    @property
    def placed(self) -> Mesh:
        """The result in the frame of the input."""
        return Mesh(self.mesh.vertices * self.cell + self.origin, self.mesh.faces)


def remesh(
    mesh: Mesh,
    resolution: int,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
    keep_cavities: bool = False,
) -> tuple[Mesh, dict[str, float | int | bool]]:
    """Return a closed mesh of a welded one, in its frame, and figures about the work.

    See `rebuild`.
    """
    rebuilt = rebuild(mesh, resolution, max_memory_bytes, keep_cavities)
    return rebuilt.placed, rebuilt.figures


def rebuild(
    mesh: Mesh,
    resolution: int,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
    keep_cavities: bool = False,
    holes: Holes = "lids",
) -> Rebuilt:
    """Return a closed mesh of a welded one.

    Holes are capped, enclosed cavities filled, tunnels narrower than a cell closed; sheets and
    plates thinner than a cell are thickened by a cell.

    Args:
        mesh: Any triangles.
        resolution: Cells along the longest side, border included.
        max_memory_bytes: Refuse work that needs more.
        keep_cavities: Leave cavities empty where the winding of the faces says they are.
        holes: What closes them: lids, and strips between the rims of thin walls; strips also
            between those of thick walls; or nothing, so that sheets stay sheets.

    Raises:
        MeshError: The resolution or the memory it needs is out of bounds, or nothing is left.
    """
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        limits = f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
        raise MeshError(
            f"resolution {resolution} is out of range",
            hint=f"--set watertight.resolution, from {limits}",
        )
    capped = Capped(mesh, 0, 0, 0)
    if holes != "none":
        capped = cap_holes(mesh, thick_walls=holes == "strips")
    low, high = capped.mesh.bounds
    cell = float((high - low).max()) / (resolution - 2 * _PADDING)
    origin = (low + high) / 2 - cell * (resolution / 2 + _SHIFT)
    surface = Mesh((capped.mesh.vertices - origin) / cell, capped.mesh.faces)
    triangles = surface.triangles
    pieces, _ = split_triangles(triangles, _PIECE_SIDE)
    grid = _allocate(pieces, resolution, max_memory_bytes)
    grid.values = _distances(pieces, _BAND, grid)
    del pieces
    scene = RayScene(surface)
    side, num_voted = classify_nodes(grid, scene, surface if keep_cavities else None)
    thin = _sign(grid, side, triangles[: len(mesh.faces)], scene)
    thick = (grid.values < 0) & (side > 0)
    del side, triangles
    num_closed = close_tunnels(grid)
    vertices, faces = extract_isosurface(grid, inside="negative")
    slab = on_slab(vertices, grid.index, thick)
    if len(thin):
        narrow_slabs(vertices, faces, slab)
    num_snapped = snap_to_edges(vertices, faces, slab, surface, grid.index)
    figures: dict[str, float | int | bool] = {
        "resolution": resolution,
        "bricks": len(grid.coords),
        "caps": capped.num_caps,
        "open_holes": capped.num_open,
        "voted_nodes": num_voted,
        "thickened_pieces": len(thin),
        "nodes_across_tunnels": num_closed,
        "snapped_vertices": num_snapped,
    }
    if len(faces) == 0:
        raise MeshError(
            f"nothing is left of the mesh at resolution {resolution}",
            hint="raise watertight.resolution, or check that the mesh is not a few points",
        )
    result, figures["specks_removed"] = drop_specks(Mesh(vertices, faces), keep_cavities)
    bare = scene
    if capped.num_cap_faces:
        bare = RayScene(Mesh(surface.vertices, surface.faces[: len(mesh.faces)]))
    return Rebuilt(result, origin, cell, scene, bare, figures)


def _sign(
    grid: BrickGrid,
    side: NDArray[np.int8],
    triangles: NDArray[np.float64],
    scene: RayScene,
) -> NDArray[np.float64]:
    """Turn the distances of a grid into signed ones; return the thin pieces added `[P, 3, 3]`."""
    # Sides are known in all bricks; only the size of the distance is not, beyond the band. A node
    # on the surface keeps its side.
    np.nan_to_num(grid.values, copy=False, nan=_BAND)
    np.maximum(grid.values, np.float32(1e-5), out=grid.values)
    thin = lost_pieces(triangles, grid, side, scene)
    grid.values *= side
    if len(thin):
        slab = _distances(thin, _SLAB_BAND, grid) - np.float32(SLAB_HALF_WIDTH)
        np.fmin(grid.values, slab, out=grid.values)
    return thin


def drop_specks(
    mesh: Mesh, keep_cavities: bool = True, smallest: int = _SPECK_FACES
) -> tuple[Mesh, int]:
    """Return the mesh without parts below `smallest` faces, and how many there were.

    The largest part always stays. Parts of negative volume are the walls of cavities.
    """
    label = vertex_components(mesh.faces, len(mesh.vertices))
    part = label[mesh.faces[:, 0]]
    size = np.bincount(part)
    drop = size < min(smallest, size.max())
    if not keep_cavities:
        drop |= part_volumes(mesh.vertices, mesh.faces, label) < 0
    drop &= size > 0
    if not drop.any() or drop[part].all():
        return mesh, 0
    return mesh.with_faces(mesh.faces[~drop[part]]), int(drop.sum())


def _allocate(pieces: NDArray[np.float64], resolution: int, max_memory_bytes: int) -> BrickGrid:
    marks = np.zeros((bricks_per_axis(resolution),) * 3, bool)
    mark_bricks(pieces, _REACH, marks)
    needed = int(marks.sum()) * _BYTES_PER_BRICK + marks.size * _BYTES_PER_MISSING_BRICK
    logger.debug("remesh: %d bricks, about %.2f GiB", marks.sum(), needed / 2**30)
    if needed > max_memory_bytes:
        raise MeshError(
            f"resolution {resolution} needs about {needed / 2**30:.1f} GiB for this mesh, "
            f"the limit is {max_memory_bytes / 2**30:.1f}",
            hint=f"--set watertight.resolution={resolution // 2}, or a higher "
            "watertight.max_memory_gib",
        )
    return BrickGrid.allocate(resolution, np.argwhere(marks))


def _distances(
    pieces: NDArray[np.float64],  # [P, 3, 3]
    band: float,
    grid: BrickGrid,
) -> NDArray[np.float32]:
    """Return unsigned distances `[B, 512]` in cells; NaN beyond the band."""
    limit = np.float32(band * band)
    squared = np.full(grid.values.shape, limit)
    scatter_distances(pieces, band, grid.index, squared)
    squared[squared >= limit] = np.nan
    return np.sqrt(squared, out=squared)
