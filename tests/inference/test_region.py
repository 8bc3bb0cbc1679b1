from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import MeshError, UsageError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.inference.region import parse_region, place_region
from ultrashape_cli.inference.stitch import require_solid, stitch

WHOLE = Frame((0, 0, 0), 1.0)
FEATHER = 0.15


@pytest.fixture(scope="module")
def former() -> Mesh:
    return require_solid(as_mesh(trimesh.creation.icosphere(5, 0.9)))


@pytest.fixture(scope="module")
def refined(former: Mesh) -> Mesh:
    """Waves all over, on other vertices."""
    turn = trimesh.transformations.rotation_matrix(1, (1, 2, 3))[:3, :3]
    points = former.vertices @ turn.T
    waves = 1 + 0.03 * np.sin(20 * points[:, :1]) * np.sin(20 * points[:, 1:2])
    return Mesh(points * waves, former.faces)


@pytest.mark.parametrize(
    "text", ["side=-z", "side=x", "box=-.4,-.4,0,.4,.4,1", "sphere=0.6,0.6,0,0.4"]
)
@pytest.mark.parametrize("feather", [FEATHER, 0.0])
def test_outside_of_a_region_nothing_changes(
    former: Mesh, refined: Mesh, text: str, feather: float
) -> None:
    region = replace(place_region(parse_region(text), WHOLE), feather=feather)
    joined_ = stitch(refined, former, region)
    state = topology(joined_)
    assert state.watertight
    assert state.components == 1
    # Without a feather a wall may stand on the border itself.
    outside = region.distance(joined_.vertices) >= (0 if feather else 1e-6)
    off = DistanceField(former, True).unsigned(joined_.vertices)[0]
    assert off[outside].max() < 1e-9
    assert off[~outside].max() > 0.01
    lost = region.distance(former.vertices) > 1e-6
    back = DistanceField(joined_, True).unsigned(former.vertices[lost])[0]
    assert back.max() < 1e-9
    # Deep inside it is what was made.
    deep = region.distance(joined_.vertices) < -max(feather, 0.02)
    assert DistanceField(refined, True).unsigned(joined_.vertices[deep])[0].max() < 1e-9


def test_small_parts_of_the_former_mesh_stay(former: Mesh, refined: Mesh) -> None:
    crumb = moved(as_mesh(trimesh.creation.icosphere(1, 0.004)), shift=(0.95, 0.2, 0))
    region = replace(place_region(parse_region("side=-x"), WHOLE), feather=FEATHER)
    assert topology(stitch(refined, joined(former, crumb), region)).components == 2


def test_a_region_is_in_the_frame_of_the_file_and_a_side_of_the_upright_mesh() -> None:
    frame = Frame((10.0, 0.0, 0.0), 0.5, up="z")
    ball = replace(place_region(parse_region("sphere=10,0,1,1"), frame), feather=FEATHER)
    assert ball.distance(np.array([[0.0, 0.5, 0.0], [0.0, 1.5, 0.0]])) == pytest.approx([-0.5, 0.5])
    box = replace(place_region(parse_region("box=11,1,1,9,-1,-1"), frame), feather=FEATHER)
    assert box.distance(np.array([[0.0, 0.0, 0.0], [0.5, 0.9, 0.0]])) == pytest.approx([-0.5, 0.4])
    top = replace(place_region(parse_region("side=y"), frame), feather=FEATHER)
    assert top.weight(np.array([[0.0, -0.1, 0], [0, 0.075, 0], [0, 0.9, 0]])).tolist() == (
        pytest.approx([0, 0.5, 1])
    )


@pytest.mark.parametrize(
    "text",
    ["", "box=1,2,3", "box=0,0,0,0,1,1", "sphere=0,0,0,0", "sphere=0,0,0,nan", "side=w", "side=--z",
     "ring=1", "mask=", "mask=nowhere.ply", "sphere"],
)  # fmt: skip
def test_what_is_no_region_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        parse_region(text)


def painted(path: Path, mesh: Mesh, bright: np.ndarray | None) -> Path:
    tri = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if bright is not None:
        colours = np.where(bright[:, None], 255, 0).repeat(3, 1)
        tri.visual.vertex_colors = np.column_stack([colours, np.full(len(bright), 255)])
    tri.export(path)
    return path


def test_a_painted_mask_is_a_region(former: Mesh, refined: Mesh, tmp_path: Path) -> None:
    bright = former.vertices[:, 1] > 0.3
    path = painted(tmp_path / "mask.ply", former, bright)
    region = replace(place_region(parse_region(f"mask={path}"), WHOLE), feather=FEATHER)
    found = region.distance(former.vertices) < 0
    assert (found == bright).mean() > 0.98
    joined_ = stitch(refined, former, region)
    assert topology(joined_).watertight
    outside = region.distance(joined_.vertices) >= 0
    off = DistanceField(former, True).unsigned(joined_.vertices)[0]
    assert off[outside].max() < 1e-9
    assert off[~outside].max() > 0.01


def test_a_mask_that_tells_nothing_is_refused(former: Mesh, tmp_path: Path) -> None:
    black = painted(tmp_path / "black.ply", former, np.zeros(len(former.vertices), bool))
    with pytest.raises(UsageError, match="nothing of the mask"):
        place_region(parse_region(f"mask={black}"), WHOLE)
    plain = painted(tmp_path / "plain.ply", former, None)
    with pytest.raises(UsageError, match="tells no region: it has no colours"):
        place_region(parse_region(f"mask={plain}"), WHOLE)


@pytest.mark.parametrize(("scale", "offset"), [(1, (3, 0, 0)), (1000, (0, 0, 0)), (0.3, (0, 0, 0))])
def test_a_mask_of_another_place_or_unit_is_refused(
    scale: float, offset: tuple[float, float, float], former: Mesh, tmp_path: Path
) -> None:
    elsewhere = Mesh(former.vertices * scale + offset, former.faces)
    path = painted(tmp_path / "mask.ply", elsewhere, former.vertices[:, 1] > 0.3)
    with pytest.raises(MeshError, match="is not where the mesh is"):
        place_region(parse_region(f"mask={path}"), WHOLE)


def test_closed_parts_that_disagree_on_the_outside_are_turned(former: Mesh) -> None:
    small = moved(as_mesh(trimesh.creation.icosphere(2, 0.03)), shift=(0.0, 0.95, 0.0))
    mixed = joined(former.flipped(), small.flipped())
    found = require_solid(mixed)
    assert topology(found).volume > 0
    half = former.faces.copy()
    half[: len(half) // 2] = half[: len(half) // 2, ::-1]
    assert topology(require_solid(Mesh(former.vertices, half))).watertight


def test_an_open_mesh_has_to_be_closed_first(former: Mesh) -> None:
    with pytest.raises(MeshError, match="needs a closed mesh, and this one has 3 open"):
        require_solid(Mesh(former.vertices, former.faces[1:]))
