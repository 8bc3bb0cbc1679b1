import numpy as np
import pytest

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.normalize import REFINE_SIDE, TRAINING_SIDE, Frame, fit_frame


def test_the_longest_side_fills_the_cube_and_the_box_is_centred() -> None:
    points = np.array([[10.0, 0, 0], [14, 1, 0], [12, -1, 6]])
    fitted = fit_frame(points).to_normalised(points)
    assert np.ptp(fitted, axis=0).max() == pytest.approx(TRAINING_SIDE)
    assert fitted.max(axis=0) + fitted.min(axis=0) == pytest.approx(0)


def test_frames_invert_themselves_and_survive_a_manifest() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * 1e3
    frame = fit_frame(points)
    assert frame.to_source(frame.to_normalised(points)) == pytest.approx(points, abs=1e-9)
    assert Frame.from_dict(frame.as_dict()) == frame


def test_points_without_extent_are_refused() -> None:
    with pytest.raises(MeshError, match="longest side"):
        fit_frame(np.ones((4, 3)))
    with pytest.raises(MeshError, match="without vertices"):
        fit_frame(np.zeros((0, 3)))


def test_normalisation_matches_the_reference(golden: dict[str, np.ndarray]) -> None:
    vertices = golden["vertices"]
    training = fit_frame(vertices).to_normalised(vertices)
    assert (training + 1) / 2 == pytest.approx(golden["train_normalized_vertices"], abs=1e-6)
    refine = fit_frame(vertices, REFINE_SIDE).to_normalised(vertices)
    assert refine == pytest.approx(golden["infer_normalized_vertices"], abs=1e-6)
    frame = fit_frame(vertices)
    assert frame.centre == pytest.approx(golden["train_center"], abs=1e-6)
    assert 2 / frame.scale == pytest.approx(float(golden["train_scale"]), rel=1e-6)
