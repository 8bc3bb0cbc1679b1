"""Lids for the holes of an open mesh."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import boundary_edges, face_components
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.rims import inward_directions, pair_rims, strip

# A hole is closed when its lid is small beside the part it closes and its outline is flat enough:
# the base of a bust, not the rim of a bowl or the outline of a sheet, which have no inside. Flat
# means the deviation from a plane relative to the radius; minor holes may be as uneven as scan gaps
# are (up to 0.12 in the bunny).
LID_AREA_SHARE, FLAT_DEVIATION = 0.3, 0.08
MINOR_AREA_SHARE, MINOR_DEVIATION = 0.02, 0.35
# Ear clipping takes quadratic time and more; longer outlines get a fan around their centre.
_MAX_EARS = 3000


@dataclass(frozen=True, slots=True)
class Capped:
    """An open mesh with lids.

    Attributes:
        mesh: The input's faces followed by the lids. Vertices are added only for fans.
        num_cap_faces: Number of lid faces.
        num_caps: Outlines closed.
        num_open: Holes left open by the rules.
    """

    mesh: Mesh
    num_cap_faces: int
    num_caps: int
    num_open: int


def cap_holes(mesh: Mesh, *, thick_walls: bool = False) -> Capped:
    """Close the holes of a welded mesh, but not the rims of its open sheets.

    The two rims of a double wall are joined by a strip.

    Args:
        mesh: With or without holes.
        thick_walls: Take two outlines for the rims of one wall where it would be a thick one.
    """
    edges = boundary_edges(mesh.faces)
    loops = boundary_loops(edges)
    if not loops:
        return Capped(mesh, 0, 0, int(len(edges) > 0))
    component = face_components(mesh.faces, len(mesh.vertices))
    component_area = np.bincount(component, mesh.area_faces)
    part_of = np.zeros(len(mesh.vertices), np.int64)
    part_of[mesh.faces] = component[:, None]

    vertices, faces = [mesh.vertices], [mesh.faces]
    num_vertices, num_caps = len(mesh.vertices), 0
    # Sheets side by side that are no holes stay sheets: lips, the layers of a skirt.
    holes = [
        _is_hole(mesh.vertices[loop], float(component_area[part_of[loop[0]]])) for loop in loops
    ]
    found = pair_rims(mesh, loops, inward_directions(mesh, edges), thick=thick_walls)
    pairs = [(a, b) for a, b in found if holes[a] or holes[b]]
    faces += [strip(mesh.vertices, loops[a], loops[b]) for a, b in pairs]
    num_caps += 2 * len(pairs)
    bridged = {index for pair in pairs for index in pair}
    for index, loop in enumerate(loops):
        points = mesh.vertices[loop]
        if index in bridged or not holes[index]:
            continue
        num_caps += 1
        ears = _clip_ears(_flatten(points)) if len(loop) <= _MAX_EARS else None
        if ears is None:
            ring = np.arange(len(loop))
            apex = np.full(len(loop), len(loop))
            ears = np.stack([ring, np.roll(ring, -1), apex], axis=1)
            loop = np.append(loop, num_vertices)
            vertices.append(points.mean(axis=0, keepdims=True))
            num_vertices += 1
        # Loops follow the direction of the faces around them; a lid runs the other way.
        faces.append(loop[ears][:, ::-1])
    capped = Mesh.from_arrays(np.concatenate(vertices), np.concatenate(faces))
    num_cap_faces = len(capped.faces) - len(mesh.faces)
    return Capped(capped, num_cap_faces, num_caps, len(loops) - num_caps)


def boundary_loops(
    edges: NDArray[np.int64],  # [E, 2]
) -> list[NDArray[np.int64]]:
    """Return closed outlines, each a list of vertices, traced along directed edges.

    Where faces disagree on their direction, edges are followed backwards too. Pieces that do not
    close are left out.
    """
    if len(edges) == 0:
        return []
    used, local = np.unique(edges, return_inverse=True)
    local = local.reshape(-1, 2)
    ends = np.concatenate([local[:, 0], local[:, 1]])
    order = np.argsort(ends, kind="stable")
    starts = np.searchsorted(ends[order], np.arange(len(used) + 1))
    chain, breaks = _trace(local, order % len(local), starts)
    pieces = np.split(chain, breaks)
    return [used[piece] for piece in pieces if len(piece) >= 3]


@kernel
def _trace(edges, incident, starts):
    """Walk along unused edges; cut a loop off whenever the walk meets itself."""
    num_edges = len(edges)
    taken = np.zeros(num_edges, np.bool_)
    place = np.full(len(starts) - 1, -1, np.int64)
    walk = np.empty(num_edges + 1, np.int64)
    chain = np.empty(num_edges, np.int64)
    breaks = np.empty(num_edges, np.int64)
    filled, num_breaks = 0, 0
    for first in range(num_edges):
        if taken[first]:
            continue
        walk[0] = edges[first, 0]
        place[walk[0]] = 0
        length = 1
        while length > 0:
            here = walk[length - 1]
            step = -1
            for k in range(starts[here], starts[here + 1]):
                e = incident[k]
                if not taken[e] and (step < 0 or edges[e, 0] == here):
                    step = e
            if step < 0:
                # A dead end: forget the vertex and go on from the one before.
                place[here] = -1
                length -= 1
                continue
            taken[step] = True
            there = edges[step, 1] if edges[step, 0] == here else edges[step, 0]
            if place[there] < 0:
                place[there] = length
                walk[length] = there
                length += 1
                continue
            for k in range(place[there], length):
                chain[filled] = walk[k]
                filled += 1
                if k > place[there]:
                    place[walk[k]] = -1
            length = place[there] + 1
            breaks[num_breaks] = filled
            num_breaks += 1
    return chain[:filled], breaks[: max(num_breaks - 1, 0)]


def _is_hole(points: NDArray[np.float64], part_area: float) -> bool:
    """Return whether an outline `[N, 3]` is a hole to close rather than the rim of a sheet."""
    vector = np.cross(points, np.roll(points, -1, axis=0), axis=1).sum(axis=0) / 2
    share = float(np.linalg.norm(vector)) / max(part_area, 1e-300)
    if share > LID_AREA_SHARE:
        return False
    centred = points - points.mean(axis=0)
    radius = np.sqrt(np.square(centred).sum(axis=1).mean())
    deviation = np.linalg.svd(centred, full_matrices=False)[1][2] / np.sqrt(len(points))
    allowed = MINOR_DEVIATION if share < MINOR_AREA_SHARE else FLAT_DEVIATION
    return bool(deviation <= allowed * radius)


def _flatten(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an outline `[N, 3]` projected on its plane `[N, 2]`, counter-clockwise."""
    centred = points - points.mean(axis=0)
    normal = np.cross(centred, np.roll(centred, -1, axis=0), axis=1).sum(axis=0)
    # The normal of the vector area beats the plane of least squares: it fixes the direction too.
    axis = np.eye(3)[np.argmin(np.abs(normal))]
    u = np.cross(axis, normal)
    u /= max(float(np.linalg.norm(u)), 1e-300)
    v = np.cross(normal, u)
    v /= max(float(np.linalg.norm(v)), 1e-300)
    return np.ascontiguousarray(np.stack([centred @ u, centred @ v], axis=1))


@kernel
def _cross2(p, a, b, c):
    u = (p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1])
    return u - (p[b, 1] - p[a, 1]) * (p[c, 0] - p[a, 0])


@kernel
def _clip_ears(points):
    """Return triangles `[N - 2, 3]` of a counter-clockwise polygon `[N, 2]`; None if it crosses."""
    count = len(points)
    after = np.empty(count, np.int64)
    before = np.empty(count, np.int64)
    for i in range(count):
        after[i] = (i + 1) % count
        before[i] = (i - 1) % count
    ears = np.empty((count - 2, 3), np.int64)
    made, here, waited = 0, 0, 0
    left = count
    while left > 3:
        a, b = before[here], after[here]
        area = _cross2(points, a, here, b)
        is_ear = area > 0 or (area == 0 and waited > left)
        if is_ear and area > 0:
            k = after[b]
            while k != a:
                if (
                    _cross2(points, a, here, k) >= 0
                    and _cross2(points, here, b, k) >= 0
                    and _cross2(points, b, a, k) >= 0
                ):
                    is_ear = False
                    break
                k = after[k]
        if not is_ear:
            here = b
            waited += 1
            if waited > 2 * left:
                return None
            continue
        ears[made, 0], ears[made, 1], ears[made, 2] = a, here, b
        made += 1
        left -= 1
        after[a], before[b] = b, a
        waited = 0
        # Jumping over the next vertex avoids a fan of needles around one corner.
        here = after[b]
    ears[made, 0], ears[made, 1], ears[made, 2] = before[here], here, after[here]
    return ears
