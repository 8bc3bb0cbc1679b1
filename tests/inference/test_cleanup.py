from __future__ import annotations

import numpy as np
import trimesh

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.cleanup import Tokens, clean, remove_floaters, remove_imagined


def ball(radius: float, at: tuple[float, float, float] = (0, 0, 0), detail: int = 3) -> Mesh:
    found = trimesh.creation.icosphere(detail, radius)
    return Mesh.from_arrays(found.vertices + at, found.faces)


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + n for mesh, n in zip(meshes, starts, strict=False)]),
    )


CROWD = joined(ball(0.5), ball(0.1, (0.8, 0, 0), 2), ball(0.01, (-0.8, 0, 0), 0))


def test_small_components_go_and_larger_ones_stay() -> None:
    cleaned = clean(CROWD, RefineConfig(floater_ratio=0.1))
    assert (cleaned.topology.components, cleaned.floaters) == (2, 1)
    cleaned = clean(CROWD, RefineConfig(floater_ratio=0.5))
    assert (cleaned.topology.components, cleaned.floaters) == (1, 2)
    cleaned = clean(CROWD, RefineConfig(keep_floaters=True))
    assert (cleaned.topology.components, cleaned.floaters) == (3, 0)


def test_the_largest_component_is_never_a_floater() -> None:
    kept, removed = remove_floaters(ball(0.5), 1.0)
    assert removed == 0
    assert len(kept.faces) == len(ball(0.5).faces)


def test_parts_that_no_token_speaks_for_go_unless_all_are_such() -> None:
    two = joined(ball(0.3, (-0.5, 0, 0)), ball(0.3, (0.5, 0, 0)))
    left = Tokens(np.array([[1, 8, 8]]), 16)  # beside x = -0.8
    kept, removed = remove_imagined(two, left)
    assert removed == 1
    assert kept.bounds[1, 0] < 0
    far = Tokens(np.array([[8, 1, 8]]), 16)
    assert remove_imagined(two, far)[0] is two
    cleaned = clean(two, RefineConfig(), left)
    assert (cleaned.topology.components, cleaned.floaters) == (1, 1)
    cleaned = clean(two, RefineConfig(keep_floaters=True), left)
    assert (cleaned.topology.components, cleaned.floaters) == (2, 0)


def test_degenerate_and_repeated_faces_are_dropped() -> None:
    whole = ball(0.5)
    faces = np.concatenate([whole.faces, whole.faces[:3], whole.faces[5:6, [0, 0, 1]]])
    cleaned = clean(Mesh(whole.vertices, faces), RefineConfig())
    assert cleaned.dropped_faces == 4
    assert cleaned.topology.solid


def test_an_inside_out_surface_is_turned() -> None:
    cleaned = clean(ball(0.5).flipped(), RefineConfig())
    assert cleaned.topology.volume > 0
    assert cleaned.mesh.volume > 0


def test_an_open_surface_is_closed() -> None:
    whole = ball(0.5)
    cleaned = clean(whole.with_faces(whole.faces[20:]), RefineConfig(grid_resolution=64))
    assert cleaned.repaired
    assert topology(cleaned.mesh).watertight


def test_faces_are_reduced_and_the_full_mesh_is_kept() -> None:
    cleaned = clean(ball(0.5), RefineConfig(faces=300))
    assert len(cleaned.mesh.faces) <= 300
    assert cleaned.topology.watertight
    assert cleaned.full is not None
    assert len(cleaned.full.faces) == len(ball(0.5).faces)
    assert clean(ball(0.5), RefineConfig(faces=10**6)).full is None
