"""Inverted hulls, boxes around all and ground planes are told from the asset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.appearance import appearance_of
from ultrashape_cli.meshfiles.load import mesh_of, read_contents
from ultrashape_cli.watertight.surroundings import without_surroundings


@pytest.fixture(scope="module")
def body() -> Mesh:
    return as_mesh(trimesh.creation.icosphere(3))


@pytest.fixture(scope="module")
def head(body: Mesh) -> Mesh:
    return moved(body, 0.4, (0, 1.2, 0))


def test_the_hull_of_each_part_goes(body: Mesh, head: Mesh) -> None:
    hulls = [moved(body, 1.04).flipped(), moved(head, 1.04, (0, -0.048, 0)).flipped()]
    found = without_surroundings(joined(body, hulls[0], hulls[1], head))
    assert len(found.mesh.faces) == 2 * len(body.faces)
    assert found.mesh.volume == pytest.approx(body.volume + head.volume)
    assert len(found.notes) == 1
    assert f"{2 * len(body.faces):,} faces" in found.notes[0]


def test_a_hull_whose_faces_share_no_vertex_goes_too(body: Mesh) -> None:
    soup = joined(moved(body, 1.02).flipped(), body)
    soup = Mesh(soup.vertices[soup.faces].reshape(-1, 3), np.arange(soup.faces.size).reshape(-1, 3))
    assert len(without_surroundings(soup).mesh.faces) == len(body.faces)


@pytest.mark.parametrize(
    "other",
    [
        lambda body: moved(body, 0.9).flipped(),  # a cavity
        lambda body: moved(body, 1.02, (0.5, 0, 0)).flipped(),  # a mirrored part
        lambda body: moved(body, 1.5).flipped(),  # a shell far away
        lambda body: moved(body, 1.02),  # a shell that is turned outward
        lambda body: moved(body.with_faces(body.faces[:-9]), 1.02).flipped(),  # another mesh
    ],
)
def test_what_is_no_hull_stays(body: Mesh, other) -> None:
    mesh = joined(other(body), body)
    found = without_surroundings(mesh)
    assert found.mesh is mesh
    assert found.kept.all()
    assert not found.notes


def test_a_box_around_everything_goes(body: Mesh, head: Mesh) -> None:
    box = moved(as_mesh(trimesh.creation.box(extents=(3, 4, 3))), shift=(0.3, 0.5, 0))
    for case in (box, box.flipped()):
        found = without_surroundings(joined(body, case, head))
        assert len(found.mesh.faces) == len(body.faces) + len(head.faces)
        assert found.notes == ["box around everything left out"]


def test_a_base_and_a_crate_of_boxes_stay(body: Mesh) -> None:
    base = moved(as_mesh(trimesh.creation.box(extents=(3, 0.2, 3))), shift=(0, -1, 0))
    assert not without_surroundings(joined(body, base)).notes
    planks = [moved(as_mesh(trimesh.creation.box(extents=(3, 3, 0.1))), shift=(0, 0, z))
              for z in (-1.5, 1.5)]  # fmt: skip
    assert not without_surroundings(joined(body, *planks)).notes
    crate = as_mesh(trimesh.creation.box(extents=(2, 2, 2)))
    assert not without_surroundings(joined(crate, moved(crate, 0.5))).notes


def test_a_ground_plane_is_noted_and_stays(body: Mesh) -> None:
    corners = [[-20.0, -1, -20], [20, -1, -20], [20, -1, 20], [-20, -1, 20]]
    plane = Mesh.from_arrays(corners, [[0, 2, 1], [0, 3, 2]])
    found = without_surroundings(joined(body, plane))
    assert found.kept.all()
    assert "20 times as long as all else" in found.notes[0]


def test_the_colours_of_a_hull_go_with_it(tmp_path: Path, body: Mesh) -> None:
    lines = []
    for mesh, red in ((moved(body, 1.03).flipped(), 0), (body, 1)):
        lines += [f"v {x!r} {y!r} {z!r} {red} 0 0" for x, y, z in mesh.vertices.tolist()]
    for mesh, first in ((body.flipped(), 1), (body, 1 + len(body.vertices))):
        lines += [f"f {a + first} {b + first} {c + first}" for a, b, c in mesh.faces.tolist()]
    path = tmp_path / "a.obj"
    path.write_text("\n".join(lines))
    contents = read_contents(path, colours=True)
    found = without_surroundings(mesh_of(path, contents))
    appearance = appearance_of(contents)
    assert appearance is not None
    appearance = appearance.kept(found.kept)
    assert len(appearance.mesh.faces) == len(body.faces)
    assert (appearance.tint[..., 0] == 255).all()
