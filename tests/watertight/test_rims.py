"""Double walls whose rims are open: hollow, and not a plug."""

from __future__ import annotations

import numpy as np
import pytest

from ultrashape_cli.geometry.check import boundary_edges, topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.caps import boundary_loops, cap_holes
from ultrashape_cli.watertight.fidelity import fidelity_of_rebuilt
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.remesh import rebuild
from ultrashape_cli.watertight.rims import inward_directions, pair_rims

AROUND = 48


def lathe(profile: list[tuple[float, float]], around: int = AROUND) -> Mesh:
    """Turns a profile of radius and height about y; the faces look to the right of its way up."""
    angles = 2 * np.pi * np.arange(around) / around
    vertices = [(r * np.cos(a), y, r * np.sin(a)) for r, y in profile for a in angles]
    faces = []
    for ring in range(len(profile) - 1):
        for k in range(around):
            a, b = ring * around + k, ring * around + (k + 1) % around
            faces += [(a, a + around, b), (b, a + around, b + around)]
    return Mesh.from_arrays(vertices, faces)


def cup(thickness: float, *, closed: bool, around: int = AROUND) -> Mesh:
    """A cup with a foot ring left out: an outer wall, an inner one, and maybe the rim."""
    rim = [(0.8, 1.5)]
    inner = [(0.8 - thickness, 1.5), (0.7 - thickness, thickness), (1e-3, thickness)]
    outside, inside = lathe([(1e-3, 0), (0.7, 0), *rim], around), lathe(inner, around)
    parts = [outside, inside]
    if closed:
        parts.append(lathe([*rim, inner[0]], around))
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Mesh.from_arrays(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([p.faces + o for p, o in zip(parts, offsets, strict=False)]),
    )


def pairs(mesh: Mesh) -> int:
    edges = boundary_edges(mesh.faces)
    loops = boundary_loops(edges)
    return len(pair_rims(mesh, loops, inward_directions(mesh, edges)))


@pytest.mark.parametrize("thickness", [0.08, 0.02])
def test_a_cup_with_an_open_rim_stays_hollow(thickness: float) -> None:
    whole = make_watertight(cup(thickness, closed=True), 96).mesh
    found = make_watertight(cup(thickness, closed=False), 96)
    assert topology(found.mesh).solid
    assert found.mesh.volume == pytest.approx(whole.volume, rel=0.05)


@pytest.mark.parametrize("inside_out", [False, True])
def test_the_strip_agrees_with_the_faces_at_both_rims(inside_out: bool) -> None:
    open_cup = cup(0.08, closed=False)
    if inside_out:
        open_cup = open_cup.flipped()
    state = topology(cap_holes(open_cup).mesh)
    assert (state.boundary_edges, state.nonmanifold_edges, state.inconsistent_edges) == (0, 0, 0)


def test_rims_of_different_density_are_joined() -> None:
    # The inner wall is finer than the outer one.
    outside, inside = lathe([(1e-3, 0), (0.8, 3)], 24), lathe([(0.74, 3), (1e-3, 0.1)], 70)
    mesh = Mesh.from_arrays(
        np.concatenate([outside.vertices, inside.vertices]),
        np.concatenate([outside.faces, inside.faces + len(outside.vertices)]),
    )
    assert pairs(mesh) == 1
    assert topology(cap_holes(mesh).mesh).boundary_edges == 0


@pytest.mark.parametrize(
    "profile",
    [
        [(0.8, 0.0), (0.8, 0.2)],  # a band: between its rims lies the band itself
        [(0.2, 0.0), (0.2, 2.0)],  # a pipe
        [(1e-3, 0.0), (0.8, 1.5)],  # one wall
    ],
)
def test_what_is_no_double_wall_gets_no_strip(profile: list[tuple[float, float]]) -> None:
    assert pairs(lathe(profile)) == 0


def double(outer: list[tuple[float, float]], inner: list[tuple[float, float]]) -> Mesh:
    """Two open walls, the inner one seen from within."""
    outside, inside = lathe(outer), lathe(inner)
    return Mesh.from_arrays(
        np.concatenate([outside.vertices, inside.vertices]),
        np.concatenate([outside.faces, inside.faces + len(outside.vertices)]),
    )


def test_a_wall_as_thick_as_its_bowl_is_hollow_too() -> None:
    mesh = double(
        [(1e-3, 0), (1, 0), (1, 1), (1, 2)], [(0.5, 2), (0.5, 1), (0.5, 0.2), (1e-3, 0.2)]
    )
    assert pairs(mesh) == 0
    found = make_watertight(mesh, 96)
    assert found.mesh.volume == pytest.approx(np.pi * (2 - 0.25 * 1.8), rel=0.05)


def test_what_a_lid_would_hide_counts_as_lost_and_stays_open() -> None:
    # The inner wall ends far below the outer one: no rim to join it to, and no plug.
    mesh = double([(1e-3, 0), (1, 0), (1, 1), (1, 2)], [(0.9, 1.1), (0.9, 0.2), (1e-3, 0.2)])
    with_lids = rebuild(mesh, 96)
    assert fidelity_of_rebuilt(mesh, with_lids)["lost_share"] > 0.2
    found = make_watertight(mesh, 96)
    assert found.measurements["caps"] == 0
    assert found.measurements["lost_share"] < 0.01
    assert found.mesh.volume < 0.2 * with_lids.placed.volume


def test_a_lid_on_the_inner_wall_hides_it_though_it_is_where_it_was() -> None:
    # The rim of the outer wall is too uneven for a lid.
    mesh = double([(1e-3, 0), (1, 0), (1, 1), (1, 3)], [(0.9, 1.5), (0.9, 0.2), (1e-3, 0.2)])
    rim = np.flatnonzero(mesh.vertices[:, 1] == 3)
    mesh.vertices[rim, 1] += 0.5 * np.sin(np.arange(AROUND) * 4 * np.pi / AROUND)
    lids = fidelity_of_rebuilt(mesh, rebuild(mesh, 96))
    assert lids["distance_p999_voxels"] < 1
    assert lids["lost_share"] > 0.2
    assert make_watertight(mesh, 96).measurements["lost_share"] < 0.01
