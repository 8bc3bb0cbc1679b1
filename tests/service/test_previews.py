"""Meshes for a viewer: small, and where the large ones were."""

from __future__ import annotations

import numpy as np
import pytest

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.service.previews import merged, reduced


def test_a_merged_sphere_is_one_of_as_many_faces_as_asked_for(sphere: Mesh) -> None:
    found = merged(sphere, 3000)
    assert 1500 < len(found.faces) < 4500
    radii = np.linalg.norm(found.vertices, axis=1)
    assert radii.min() > 0.95
    assert radii.max() < 1.001
    assert found.area_faces.sum() == pytest.approx(4 * np.pi, rel=0.03)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 20.0])
def test_a_preview_has_no_more_faces_than_allowed(sphere: Mesh, ratio: float) -> None:
    limit = int(len(sphere.faces) / ratio)
    found = reduced(sphere, limit)
    assert len(found.faces) <= 1.05 * limit
    assert np.linalg.norm(found.vertices, axis=1).max() < 1.02
    assert found.area_faces.sum() == pytest.approx(4 * np.pi, rel=0.03)


def test_a_preview_needs_no_package_for_collapsing_edges(
    sphere: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decimate(*_: object, **__: object) -> Mesh:
        raise DependencyError("neither loads")

    monkeypatch.setattr("ultrashape_cli.geometry.decimate.decimate", decimate)
    assert len(reduced(sphere, 2000).faces) < 3000
