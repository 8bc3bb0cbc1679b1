from __future__ import annotations

import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.geometry import crossings
from ultrashape_cli.geometry.crossings import crossing_share


def test_faces_that_cross_others_are_counted() -> None:
    box = as_mesh(trimesh.creation.icosphere(3))
    assert crossing_share(box) == 0
    crossed = joined(box, moved(box, shift=(1.1, 0.2, 0.1)))
    share = crossing_share(crossed)
    assert share is not None
    assert 0.02 < share < 0.3


def test_without_pymeshlab_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossings, "missing_reason", lambda name: "it is not here")
    assert crossing_share(as_mesh(trimesh.creation.icosphere(1))) is None
