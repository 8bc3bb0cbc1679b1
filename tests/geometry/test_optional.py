"""pymeshlab and open3d are used where they load and missed with one line where they do not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry import optional
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.decimate import decimate
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.figurines import make_figurine
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.repair import repair_manifold

needs_pymeshlab = pytest.mark.skipif(
    optional.missing_reason("pymeshlab") is not None, reason="pymeshlab cannot load here"
)
needs_either = pytest.mark.skipif(
    None not in (optional.missing_reason("pymeshlab"), optional.missing_reason("open3d")),
    reason="neither open3d nor pymeshlab can load here",
)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither package can be imported."""
    for name in ("pymeshlab", "open3d"):
        monkeypatch.setitem(sys.modules, name, None)
    optional.missing_reason.cache_clear()
    yield
    optional.missing_reason.cache_clear()


def _with_fin() -> Mesh:
    """A closed figurine with one extra triangle on an edge: three faces meet there."""
    mesh = make_figurine(0, resolution=32)
    a, b = mesh.faces[0, :2]
    tip = mesh.vertices[a] + [0.0, 0.0, 0.05]
    faces = np.concatenate([mesh.faces, [[a, b, len(mesh.vertices)]]])
    return Mesh(np.concatenate([mesh.vertices, [tip]]), faces)


@needs_pymeshlab
def test_a_branching_edge_is_repaired_and_the_surface_kept() -> None:
    mesh = _with_fin()
    assert topology(mesh).nonmanifold_edges == 1
    assert topology(repair_manifold(mesh)).nonmanifold_edges == 0
    result = make_watertight(mesh, 64)
    assert result.rung == "repair"
    assert abs(len(result.mesh.faces) - len(mesh.faces)) < 10


@pytest.mark.usefixtures("blocked")
def test_without_pymeshlab_the_mesh_is_rebuilt_and_the_cause_recorded() -> None:
    result = make_watertight(_with_fin(), 64)
    assert result.rung == "remesh"
    assert result.measurements["watertight"]
    assert "pymeshlab cannot load" in str(result.measurements["missing"])


@needs_either
def test_decimation_keeps_a_watertight_mesh_watertight() -> None:
    mesh = make_figurine(1, resolution=48)
    fewer = decimate(mesh, 1000)
    assert len(fewer.faces) <= 1010
    assert topology(fewer).watertight
    assert fewer.volume == pytest.approx(mesh.volume, rel=0.03)


def test_a_mesh_below_the_target_is_left_alone() -> None:
    mesh = make_figurine(1, resolution=24)
    assert decimate(mesh, 10**9) is mesh


@pytest.mark.usefixtures("blocked")
def test_decimation_without_either_package_says_what_to_install() -> None:
    with pytest.raises(DependencyError) as caught:
        decimate(make_figurine(1, resolution=24), 100)
    assert "pip install pymeshlab" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("libusb-1.0.so.0: cannot open shared object file", "apt-get install libusb-1.0-0"),
        ("No module named 'open3d'", "pip install open3d"),
    ],
)
def test_a_missing_system_library_names_its_package(monkeypatch, message: str, fix: str) -> None:
    def fail(name: str) -> None:
        raise ImportError(message)

    monkeypatch.setattr(optional.importlib, "import_module", fail)
    optional.missing_reason.cache_clear()
    assert str(optional.missing_reason("open3d")).endswith(fix)
    optional.missing_reason.cache_clear()
