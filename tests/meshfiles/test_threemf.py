"""3MF as slicers write it: parts in other files, ids of their own, units, materials."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from shapes import joined, moved
from test_gltf import colour_at, halves

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import load_mesh, mesh_of, read_contents

RELATION = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/{target}" Id="r" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
HEAD = (
    '<model unit="{unit}" xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02" '
    'xmlns:m="http://schemas.microsoft.com/3dmanufacturing/material/2015/02" '
    'xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06">'
)
SQUARE = Mesh.from_arrays([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [(0, 1, 2), (0, 2, 3)])


def _mesh(mesh: Mesh, properties: str = "") -> str:
    points = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in mesh.vertices.tolist())
    faces = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {properties}/>' for a, b, c in mesh.faces.tolist()
    )
    return f"<mesh><vertices>{points}</vertices><triangles>{faces}</triangles></mesh>"


def _model(resources: str, build: str, unit: str = "millimeter") -> str:
    head = HEAD.format(unit=unit)
    return f"{head}<resources>{resources}</resources><build>{build}</build></model>"


def _write(path: Path, start: str = "3D/3dmodel.model", **files: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_rels/.rels", RELATION.format(target=start))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _simple(path: Path, resources: str, build: str = '<item objectid="1"/>', **more: bytes) -> Path:
    return _write(path, **{"3D/3dmodel.model": _model(resources, build)}, **more)


def test_what_the_build_names_is_read_and_nothing_else(tmp_path: Path, torus: Mesh) -> None:
    resources = f'<object id="1">{_mesh(torus)}</object><object id="2">{_mesh(SQUARE)}</object>'
    found = load_mesh(_simple(tmp_path / "a.3mf", resources))
    assert np.array_equal(found.vertices, torus.vertices)
    assert np.array_equal(found.faces, torus.faces)


def test_the_start_part_comes_from_the_relations(tmp_path: Path) -> None:
    files = {
        "3D/a.model": _model(f'<object id="1">{_mesh(SQUARE)}</object>', '<item objectid="1"/>'),
        "3D/3dmodel.model": _model("", ""),
    }
    found = load_mesh(_write(tmp_path / "a.3mf", "3D/a.model", **files))
    assert found.extents.tolist() == [2, 2, 0]


def test_ids_belong_to_their_file_and_components_are_placed(tmp_path: Path, sphere: Mesh) -> None:
    part = "3D/Objects/part.model"
    up = "1 0 0 0 1 0 0 0 1 0 0 9"
    resources = (
        f'<object id="1">{_mesh(SQUARE)}</object><object id="2"><components>'
        f'<component objectid="1"/><component p:path="/{part}" objectid="1" transform="{up}"/>'
        "</components></object>"
    )
    path = _write(
        tmp_path / "a.3mf",
        **{
            "3D/3dmodel.model": _model(resources, f'<item objectid="2" transform="{up}"/>'),
            part: _model(f'<object id="1">{_mesh(sphere)}</object>', ""),
        },
    )
    found = load_mesh(path)
    assert len(found.faces) == len(SQUARE.faces) + len(sphere.faces)
    assert found.bounds[0, 2] == 9
    assert found.bounds[1, 2] == pytest.approx(18 + sphere.bounds[1, 2])


def test_files_in_another_unit_are_scaled_to_the_first(tmp_path: Path) -> None:
    part = "3D/part.model"
    files = {
        "3D/3dmodel.model": _model("", f'<item p:path="/{part}" objectid="1"/>'),
        part: _model(f'<object id="1">{_mesh(SQUARE)}</object>', "", unit="inch"),
    }
    assert load_mesh(_write(tmp_path / "a.3mf", **files)).extents[0] == pytest.approx(2 * 25.4)


@pytest.mark.parametrize("own", [True, False])
def test_base_materials_colour_objects_and_triangles(tmp_path: Path, own: bool) -> None:
    group = (
        '<basematerials id="5"><base name="a" displaycolor="#00FF00"/>'
        '<base name="b" displaycolor="#FF0000FF"/></basematerials>'
    )
    of_object, of_triangle = ("", 'pid="5" p1="1"') if own else ('pid="5" pindex="1"', "")
    resources = f'{group}<object id="1" {of_object}>{_mesh(SQUARE, of_triangle)}</object>'
    assert colour_at(_simple(tmp_path / "a.3mf", resources), 0.2, 0.3) == "red"


def test_colour_groups_tint_corners(tmp_path: Path) -> None:
    group = '<m:colorgroup id="5"><m:color color="#0000FF"/></m:colorgroup>'
    resources = f'{group}<object id="1" pid="5" pindex="0">{_mesh(SQUARE)}</object>'
    assert colour_at(_simple(tmp_path / "a.3mf", resources), 0.2, 0.3) == "blue"


def test_textures_are_laid_on(tmp_path: Path) -> None:
    corners = "".join(
        f'<m:tex2coord u="{(x + 1) / 2}" v="{(y + 1) / 2}"/>' for x, y, _ in SQUARE.vertices
    )
    group = (
        '<m:texture2d id="4" path="/3D/t.png" contenttype="image/png"/>'
        f'<m:texture2dgroup id="5" texid="4">{corners}</m:texture2dgroup>'
    )
    faces = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" pid="5" p1="{a}" p2="{b}" p3="{c}"/>'
        for a, b, c in SQUARE.faces.tolist()
    )
    body = _mesh(SQUARE).split("<triangles>")[0]
    resources = f'{group}<object id="1">{body}<triangles>{faces}</triangles></mesh></object>'
    path = _simple(tmp_path / "a.3mf", resources, **{"3D/t.png": halves()})
    assert (colour_at(path, -0.5, 0.1), colour_at(path, 0.5, 0.1)) == ("red", "blue")


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("", "refers to object 1 of"),
        ('<object id="1"><components><component objectid="1"/></components></object>', "of itself"),
        ('<object id="1"><mesh><vertices><vertex x="a"/></vertices></mesh></object>', "numbers"),
        ("<object", "XML is malformed"),
    ],
)
def test_malformed_models_are_refused_in_words(
    tmp_path: Path, resources: str, message: str
) -> None:
    with pytest.raises(MeshError, match=message):
        load_mesh(_simple(tmp_path / "a.3mf", resources))


def test_components_cannot_unfold_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultrashape_cli.meshfiles.threemf._MAX_PARTS", 1000)
    levels = [f'<object id="0">{_mesh(SQUARE)}</object>']
    for level in range(1, 9):
        ten = f'<component objectid="{level - 1}"/>' * 10
        levels.append(f'<object id="{level}"><components>{ten}</components></object>')
    path = _simple(tmp_path / "a.3mf", "".join(levels), '<item objectid="8"/>')
    with pytest.raises(MeshError, match="unfold to more than 1,000 parts"):
        load_mesh(path)


PRUSA = (
    '<config><object id="1" instances_count="1"><volume firstid="0" lastid="1">'
    '<metadata type="volume" key="name" value="body"/></volume>'
    '<volume firstid="2" lastid="3"><metadata type="volume" key="volume_type" value="{kind}"/>'
    "</volume></object></config>"
)


@pytest.mark.parametrize("kind", ["ParameterModifier", "NegativeVolume", "SupportBlocker"])
def test_modifiers_of_prusaslicer_are_no_surface(tmp_path: Path, kind: str) -> None:
    both = joined(SQUARE, moved(SQUARE, shift=(9, 0, 0)))
    more = {"Metadata/Slic3r_PE_model.config": PRUSA.format(kind=kind).encode()}
    path = _simple(tmp_path / "a.3mf", f'<object id="1">{_mesh(both)}</object>', **more)
    contents = read_contents(path, colours=True)
    assert np.array_equal(mesh_of(path, contents).triangles, SQUARE.triangles)
    assert "2 faces of modifiers" in contents.notes[0]
    part = {"Metadata/Slic3r_PE_model.config": PRUSA.format(kind="ModelPart").encode()}
    path = _simple(tmp_path / "b.3mf", f'<object id="1">{_mesh(both)}</object>', **part)
    assert len(load_mesh(path).faces) == 4


@pytest.mark.parametrize("kind", ["support", "solidsupport", "other", "model", "surface"])
def test_objects_that_are_not_printed_are_left_out(tmp_path: Path, kind: str) -> None:
    resources = (
        f'<object id="1">{_mesh(SQUARE)}</object><object id="2" type="{kind}">{_mesh(SQUARE)}'
        '</object><object id="3"><components><component objectid="1"/>'
        '<component objectid="2"/></components></object>'
    )
    path = _simple(tmp_path / "a.3mf", resources, '<item objectid="3"/>')
    contents = read_contents(path, colours=False)
    is_part = kind in ("model", "surface")
    assert sum(len(part.faces) for part in contents.parts) == (4 if is_part else 2)
    assert bool(contents.notes) != is_part


@pytest.mark.parametrize(("space", "known"), [
    ("http://schemas.microsoft.com/3dmanufacturing/production/2015/06", True),
    ("http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02", False),
    ("http://example.org/more", False),
])  # fmt: skip
def test_an_extension_that_is_required_is_known_or_refused(
    tmp_path: Path, space: str, known: bool
) -> None:
    model = _model(f'<object id="1">{_mesh(SQUARE)}</object>', '<item objectid="1"/>')
    model = model.replace("<model ", f'<model xmlns:x="{space}" requiredextensions="x" ')
    path = _write(tmp_path / "a.3mf", **{"3D/3dmodel.model": model})
    if known:
        assert len(load_mesh(path).faces) == 2
        return
    with pytest.raises(MeshError, match=f"requires the extension {space}"):
        load_mesh(path)


def test_items_that_are_not_printed_are_left_out(tmp_path: Path) -> None:
    resources = f'<object id="1">{_mesh(SQUARE)}</object>'
    far = '<item objectid="1" printable="0" transform="1 0 0 0 1 0 0 0 1 90 0 0"/>'
    path = _simple(tmp_path / "a.3mf", resources, far + '<item objectid="1"/>')
    contents = read_contents(path, colours=False)
    assert mesh_of(path, contents).extents.tolist() == [2, 2, 0]
    assert contents.notes == ["1 items that are not printed left out"]
    assert len(load_mesh(_simple(tmp_path / "b.3mf", resources, far)).faces) == 2


def test_materials_that_are_not_read_are_told(tmp_path: Path) -> None:
    group = '<m:multiproperties id="9" pids="5"><m:multi pindices="0"/></m:multiproperties>'
    path = _simple(tmp_path / "a.3mf", f'{group}<object id="1" pid="9">{_mesh(SQUARE)}</object>')
    found = read_contents(path, colours=True).problems
    assert found == ["colours left out: multiproperties are not read"]
