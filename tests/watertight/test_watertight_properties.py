"""Random damage to solids of known volume: the result is solid and stays where the input is."""

import itertools

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight import inside, remesh
from ultrashape_cli.watertight import ladder as watertight
from ultrashape_cli.watertight.fidelity import Gates
from ultrashape_cli.watertight.ladder import REMESH_GATES, REPAIR_GATES, make_watertight

CELLS = 48
SOLIDS = {
    "ball": as_mesh(trimesh.creation.icosphere(subdivisions=3)),
    "torus": as_mesh(trimesh.creation.torus(1.0, 0.45, major_sections=48, minor_sections=24)),
    "box": as_mesh(trimesh.creation.box((1.6, 1.2, 0.9)).subdivide().subdivide()),
}
# An inner shell would show through punctures and cracks; a hole in a soup has no outline to cap.
DAMAGES = (
    {"punctured"}, {"flipped"}, {"doubled"}, {"soup"}, {"punctured", "flipped"},
    {"flipped", "doubled"}, {"flipped", "soup"}, set(),
)  # fmt: skip


def _damaged(mesh: Mesh, damages: set[str], seed: int) -> tuple[Mesh, float]:
    """The mesh in pieces, turned, scaled and moved, and the scale."""
    rng = np.random.default_rng(seed)
    if "doubled" in damages:
        mesh = joined(mesh, moved(mesh, 0.9))
    faces = mesh.faces
    if "punctured" in damages:
        faces = faces[rng.random(len(faces)) > 0.003]
    if "flipped" in damages:
        flip = rng.random(len(faces)) < 0.4
        faces = np.where(flip[:, None], faces[:, ::-1], faces)
    mesh = Mesh.from_arrays(mesh.vertices, faces)
    if "soup" in damages:
        corners = mesh.triangles + rng.normal(scale=1e-4, size=mesh.triangles.shape)
        mesh = Mesh.from_arrays(corners, np.arange(3 * len(faces)).reshape(-1, 3))
    turn = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    scale = 10 ** rng.uniform(-3, 3)
    return Mesh((mesh.vertices @ turn.T + rng.normal(size=3)) * scale, mesh.faces), scale


@settings(
    max_examples=16,
    # A case is a seed: shrinking it would only take time.
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    solid=st.sampled_from(sorted(SOLIDS)),
    damages=st.sampled_from(DAMAGES),
    seed=st.integers(0, 10**6),
)
def test_damage_leaves_one_solid_of_the_same_volume(
    solid: str, damages: set[str], seed: int
) -> None:
    mesh = SOLIDS[solid]
    source, scale = _damaged(mesh, damages, seed)
    result = make_watertight(source, CELLS)
    state = topology(result.mesh)
    assert state.solid
    assert state.components == 1
    assert state.genus == topology(mesh).genus
    assert state.volume == pytest.approx(mesh.volume * scale**3, rel=0.03)
    assert result.measurements["distance_p999_voxels"] < 1
    assert result.measurements["lost_share"] == 0


@pytest.mark.parametrize("thickness", [0.0, 0.2, 0.7, 1.5])
@pytest.mark.parametrize("turned", [False, True])
def test_plates_of_any_thickness_survive(thickness: float, turned: bool) -> None:
    """Thickness in cells; a plate below a cell may come out thicker by one."""
    cell = 2 / (CELLS - 8)
    plate = trimesh.creation.box((2, 1.4, max(thickness * cell, 1e-9)))
    if turned:
        plate.apply_transform(trimesh.transformations.euler_matrix(0.4, 0.7, 0.1))
    source = as_mesh(plate)
    result = make_watertight(source, CELLS, first_rung="remesh")
    state = topology(result.mesh)
    assert state.solid
    assert (state.components, state.genus) == (1, 0)
    cell = float(source.extents.max()) / (CELLS - 8)
    assert state.volume / 2.8 / cell < thickness + 1.3
    distance, _ = DistanceField(result.mesh).unsigned(as_mesh(plate.subdivide()).vertices)
    assert distance.max() < 1.2 * cell


def _break_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_vote", lambda *arguments: None)


def _break_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultrashape_cli.watertight.caps import Capped

    monkeypatch.setattr(remesh, "cap_holes", lambda mesh, **_: Capped(mesh, 0, 0, 0))


def _break_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inside._components

    def one_component(coords, index, distances):
        label, missing, size = whole(coords, index, distances)
        return label * 0, missing * 0, size

    monkeypatch.setattr(inside, "_components", one_component)


def _rough_ball() -> Mesh:
    """A ball with bristles two cells long and a hole: votes, flood and lids all have work."""
    ball = as_mesh(trimesh.creation.icosphere(subdivisions=4))
    rng = np.random.default_rng(0)
    spiked = ball.vertices * (1 + 0.08 * rng.random((len(ball.vertices), 1)))
    return Mesh(spiked, ball.faces).with_faces(ball.faces[spiked[ball.faces].mean(1)[:, 2] < 0.95])


@pytest.mark.parametrize("damage", [_break_votes, _break_caps, _break_flood])
def test_a_broken_step_does_not_pass(damage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures tell a remesher without votes, lids or flood from a whole one."""
    source = _rough_ball()
    whole = make_watertight(source, CELLS, first_rung="remesh")
    damage(monkeypatch)
    try:
        broken = make_watertight(source, CELLS, first_rung="remesh")
    except MeshError:
        return
    worse = broken.measurements["distance_mean_voxels"]
    apart = abs(broken.mesh.volume / whole.mesh.volume - 1)
    assert apart > 0.2 or worse > 1.2 * whole.measurements["distance_mean_voxels"]


def test_every_figure_has_its_gate() -> None:
    fine = {
        "distance_mean_voxels": 0.0,
        "distance_p999_voxels": 0.0,
        "lost_share": 0.0,
        "normal_consistency": 1.0,
    }
    for gates, name in itertools.product((REPAIR_GATES, REMESH_GATES), Gates._fields):
        assert gates.broken_by(fine) == ""
        off = -0.01 if name == "normal_consistency" else 0.01
        assert name in gates.broken_by(fine | {name: getattr(gates, name) + off})
        assert name in gates.broken_by({k: v for k, v in fine.items() if k != name})
        assert name in gates.broken_by(fine | {name: float("nan")})


def test_a_repair_that_breaks_a_gate_is_remeshed(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = SOLIDS["ball"]
    punctured = ball.with_faces(ball.faces[1:])
    assert make_watertight(punctured, CELLS).rung == "repair"
    monkeypatch.setattr(watertight, "REPAIR_GATES", REPAIR_GATES._replace(normal_consistency=1.1))
    result = make_watertight(punctured, CELLS)
    assert result.rung == "remesh"
    assert "normal_consistency" in result.measurements["repair_rejected"]


def test_a_remesh_that_breaks_a_gate_fails_with_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watertight, "REMESH_GATES", REMESH_GATES._replace(distance_p999_voxels=0))
    with pytest.raises(MeshError, match=r"distance_p999_voxels 0\.\d+ \(limit 0\)") as caught:
        make_watertight(SOLIDS["torus"], CELLS, first_rung="remesh")
    assert "resolution" in str(caught.value.hint)


@pytest.mark.parametrize("first_rung", ["keep", "repair", "remesh"])
def test_every_rung_records_all_figures(first_rung: watertight.Rung) -> None:
    figures = make_watertight(SOLIDS["torus"], CELLS, first_rung=first_rung).measurements
    names = {"distance_mean", "distance_p999", "unseen_share", *Gates._fields}
    assert names <= set(figures)
    assert figures["unseen_share"] == pytest.approx(0, abs=0.01)


def test_an_inner_shell_is_unseen() -> None:
    ball = SOLIDS["ball"]
    hollow = joined(ball, moved(ball, 0.5).flipped())
    kept = make_watertight(hollow, CELLS, keep_cavities=True)
    # A quarter of the outer area, of five quarters in all.
    assert kept.measurements["unseen_share"] == pytest.approx(0.2, abs=0.02)
