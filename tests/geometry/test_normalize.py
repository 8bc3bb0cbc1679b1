import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.front import front_axis
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import (
    REFINE_SIDE,
    TRAINING_SIDE,
    Frame,
    Front,
    Up,
    fit_frame,
)


def fan(points: np.ndarray) -> Mesh:
    """A mesh whose faces use all points."""
    last = np.arange(2, max(len(points), 3))
    return Mesh.from_arrays(points, np.stack([0 * last, last - 1, last % len(points)], axis=1))


def test_the_longest_side_fills_the_cube_and_the_box_is_centred() -> None:
    points = np.array([[10.0, 0, 0], [14, 1, 0], [12, -1, 6]])
    fitted = fit_frame(fan(points)).to_normalised(points)
    assert np.ptp(fitted, axis=0).max() == pytest.approx(TRAINING_SIDE)
    assert fitted.max(axis=0) + fitted.min(axis=0) == pytest.approx(0)


def test_frames_invert_themselves_and_survive_a_manifest() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * 1e3
    frame = fit_frame(fan(points))
    assert frame.to_source(frame.to_normalised(points)) == pytest.approx(points, abs=1e-9)
    assert Frame.from_dict(frame.as_dict()) == frame


def test_points_without_extent_are_refused() -> None:
    with pytest.raises(MeshError, match="longest side"):
        fit_frame(fan(np.ones((4, 3))))
    with pytest.raises(MeshError, match="without faces"):
        fit_frame(Mesh.from_arrays(np.ones((4, 3)), []))


def test_normalisation_matches_the_reference(golden: dict[str, np.ndarray]) -> None:
    vertices = golden["vertices"]
    training = fit_frame(fan(vertices)).to_normalised(vertices)
    assert (training + 1) / 2 == pytest.approx(golden["train_normalized_vertices"], abs=1e-6)
    refine = fit_frame(fan(vertices), REFINE_SIDE).to_normalised(vertices)
    assert refine == pytest.approx(golden["infer_normalized_vertices"], abs=1e-6)
    frame = fit_frame(fan(vertices))
    assert frame.centre == pytest.approx(golden["train_center"], abs=1e-6)
    assert 2 / frame.scale == pytest.approx(float(golden["train_scale"]), rel=1e-6)


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("front", ["z", "-z", "x", "-x"])
def test_the_front_becomes_z_and_turns_back(up: Up, front: Front) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    frame = fit_frame(fan(points), up=up, front=front)
    nose = {"x": (1, 0, 0), "z": (0, 0, 1) if up == "y" else (0, -1, 0)}[front[-1]]
    sign = -1 if front[0] == "-" else 1
    turned = frame.to_normalised(np.array(nose) * sign + frame.centre) / frame.scale
    assert turned == pytest.approx([0, 0, 1])
    assert frame.to_source(frame.to_normalised(points)) == pytest.approx(points)
    assert np.linalg.det(frame.to_normalised(np.eye(3) + frame.centre)) > 0
    assert Frame.from_dict(frame.as_dict()) == frame
    assert Frame.from_dict({"centre": [0, 0, 0], "scale": 1}).front == "z"


def test_points_that_no_face_uses_have_no_say() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [90, 0, 0]])
    assert fit_frame(Mesh.from_arrays(points, [[0, 1, 2]])).scale == pytest.approx(TRAINING_SIDE)


def test_the_front_is_where_left_and_right_are_alike() -> None:
    # A body along an axis, a fin on top at its tail; the other axis across it has no mirror image.
    body = as_mesh(trimesh.creation.box(extents=(4, 1, 1)))
    fin = as_mesh(trimesh.creation.box(extents=(0.4, 1, 0.05)))
    plane = joined(body, moved(fin, shift=(-1.5, 1, 0)))
    assert front_axis("auto", plane, "y") == "x"
    assert front_axis("-z", plane, "y") == "-z"
    turned = Mesh(plane.vertices[:, [2, 1, 0]], plane.faces[:, ::-1])
    assert front_axis("auto", turned, "y") == "z"
    assert front_axis("auto", body, "y") == "z"
