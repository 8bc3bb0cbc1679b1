"""OBJ files as programs write them, beside a plain twin."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.obj import read_obj
from ultrashape_cli.meshfiles.parts import Contents, Part, Unreadable

BALL = trimesh.creation.icosphere(subdivisions=1)
RED, BLUE = [220, 20, 20], [20, 20, 220]
SIDES = np.where(BALL.vertices[:, :1] > 0, [RED], [BLUE])


def vertices(form: str = "v {} {} {}\n") -> str:
    return "".join(form.format(*map(float, point)) for point in BALL.vertices)


def faces(form: str = "f {} {} {}\n") -> str:
    return "".join(form.format(*(face + 1).tolist()) for face in BALL.faces)


PLAIN = vertices() + faces()
SPELLINGS = {
    "tabs": vertices("v\t{}\t{}\t{}\n") + faces("f\t{}\t{}\t{}\n"),
    "indented": vertices("  v  {} {} {} \n") + faces("\t f {} {} {}  \n"),
    "crlf": PLAIN.replace("\n", "\r\n"),
    "cr": PLAIN.replace("\n", "\r"),
    "byte order mark": "\ufeff" + PLAIN,
    "no last line end": PLAIN.rstrip(),
    "continued": vertices("v {} \\\n {} {}\n") + faces("f {} \\\r\n {}\\\n {}\n"),
    "comments": "# a \\\n" + vertices("v {} {} {} # here\n") + "#\n" + faces("f {} {} {} #x\n"),
    "weights": vertices("v {} {} {} 1.0\n") + faces("f {}// {}// {}//\n"),
    "normals": vertices() + "vn 0 0 1\n" + faces("f {}//1 {}//1 {}//1\n"),
    "texture coordinates": vertices() + "vt 0.5\nvt 0 0 0\n" + faces("f {}/1 {}/2/ {}/-1/7\n"),
    "folder at the end of a comment": "# C:\\models\\\no C:\\a\\\n" + PLAIN,
    "faces first": faces() + vertices(),
    "other statements": vertices() + "l 1 2 3\np 4\nf 1 2\nf 3\ns off\ng a b\ncstype bezier\n"
    "curv 0 1 \\\n 1 2\nvp 0.3\nend\n" + faces(),
    "latin-1": "o K\xf6rper\ng Gr\xfcn\n" + PLAIN,
}


def read(folder: Path, text: str, encoding: str = "utf-8", **files: str) -> Contents:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    (folder / "a.obj").write_bytes(text.encode(encoding))
    return read_obj(folder / "a.obj", colours=True)


def mesh_of(contents: Contents) -> Mesh:
    (part,) = contents.parts
    return Mesh(part.vertices, part.faces)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_mesh(tmp_path: Path, spelling: str) -> None:
    found = read(tmp_path, SPELLINGS[spelling], "latin-1" if spelling == "latin-1" else "utf-8")
    assert np.array_equal(found.parts[0].vertices, BALL.vertices)
    assert np.array_equal(found.parts[0].faces, BALL.faces)
    assert not found.looks
    assert not found.problems
    bare = read_obj(tmp_path / "a.obj", colours=False).parts[0]
    assert np.array_equal(bare.faces, BALL.faces)


def test_a_plain_file_reads_as_trimesh_reads_it(tmp_path: Path) -> None:
    BALL.export(tmp_path / "a.obj")
    part = read_obj(tmp_path / "a.obj", colours=True).parts[0]
    other = trimesh.load(tmp_path / "a.obj", process=False)
    assert np.array_equal(part.vertices, other.vertices)
    assert np.array_equal(part.faces, other.faces)


def test_negative_indices_count_from_their_line(tmp_path: Path) -> None:
    text = ""
    for shift in (0, 5, 9):
        text += "".join(f"v {x + shift} {y} {z}\n" for x, y, z in BALL.vertices.tolist())
        text += "".join("f {} {} {}\n".format(*(f - len(BALL.vertices)).tolist())
                        for f in BALL.faces)  # fmt: skip
    mesh = mesh_of(read(tmp_path, text))
    assert mesh.volume == pytest.approx(3 * BALL.volume)
    assert mesh.extents[0] == pytest.approx(BALL.extents[0] + 9)


def test_concave_polygons_stay_inside_their_outline(tmp_path: Path) -> None:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 1, 1.0, 0.4)
    text = "".join(
        f"v {r * np.cos(a)} {r * np.sin(a)} 0\n" for a, r in zip(angle, radius, strict=True)
    )
    mesh = mesh_of(read(tmp_path, text + "f 1 2 3 4 5 6 7 8 9 10\n"))
    assert mesh.area_faces.sum() == pytest.approx(10 * 0.5 * 0.4 * np.sin(np.pi / 5))


def test_coordinates_that_are_not_finite_are_kept_for_the_caller(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1.#IND -1.#QNAN 0\nv nan(ind) inf 1e999\nf 1 2 3\n"
    part = read(tmp_path, text).parts[0]
    assert np.isfinite(part.vertices).tolist() == [[True] * 3, [False, False, True], [False] * 3]


@pytest.mark.parametrize(("text", "message"), [
    ("v 0 0 0\nv 1,5 0 0\n", "line 2: `1,5` is no number: it has a decimal comma"),
    ("v 0 0\n", "line 1: a vertex needs three numbers"),
    ("v 0 0 x\n", "line 1: `x` is no number"),
    ("v 0 0 0\r\nv 0 0 0\r\n\r\nf 1 2 9\r\n", "line 4: face corner `9`: the file has 2 vertices"),
    ("v 0 0 0\rv 0 0 0\rf 1 2 -3\r", "line 3: face corner `-3`: the file has 2 vertices"),
    ("v 0 0 0\nf 0 1 1\n", "line 2: face corner `0`: vertices count from 1"),
    ("v 0 0 0\nf 1/1 a/b 1\n", "line 2: face corner `a/b` is no number"),
    ("v 0 0 0\nf 1.0 1 1\n", "line 2: face corner `1.0` is no number"),
    ("v 0 0 0\nv 1 \\\n 0 \\\n 0\nf 1 2 3\n", "line 5: face corner `3`"),
    ("v 0 0 0\nvt 0 x\n", "line 2: `x` is no number"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, text: str, message: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_name(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(Unreadable, match="UTF-16") as error:
        read(tmp_path, PLAIN, encoding)
    assert "UTF-8" in error.value.hint


def polypaint() -> str:
    words = ["ff{:02x}{:02x}{:02x}".format(*colour) for colour in SIDES.tolist()]
    return "".join(f"#MRGB {''.join(words[k : k + 20])}\n" for k in range(0, len(words), 20))


def coloured(form: str, scale: float = 255) -> str:
    rows = np.concatenate([BALL.vertices, SIDES / scale], axis=1).tolist()
    return "".join(form.format(*row) for row in rows)


COLOURED = {
    "floats": coloured("v {} {} {} {:.4f} {:.4f} {:.4f}\n") + faces(),
    "with alpha": coloured("v {} {} {} {:.4f} {:.4f} {:.4f} 1\n") + faces(),
    "bytes": coloured("v {} {} {} {:.0f} {:.0f} {:.0f}\n", 1) + faces(),
    "polypaint": vertices() + polypaint() + faces(),
    "plain material": "mtllib a.mtl\nusemtl m\n"
    + coloured("v {} {} {} {:.4f} {:.4f} {:.4f}\n")
    + faces(),
}


@pytest.mark.parametrize("kind", COLOURED)
def test_colours_of_vertices(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, COLOURED[kind], a_mtl="newmtl m\nKd 0 1 0\n")
    part = found.parts[0]
    assert np.array_equal(part.tint[..., :3], SIDES[BALL.faces])
    assert {found.looks[k].colour for k in part.look} == {(1, 1, 1, 1)}
    assert not found.problems
    assert not found.tint_is_linear


def test_a_plain_colour_goes_before_vertices_that_are_all_white(tmp_path: Path) -> None:
    text = "mtllib a.mtl\nusemtl m\n" + vertices("v {} {} {} 1 1 1\n") + faces()
    found = read(tmp_path, text, a_mtl="newmtl m\nKd 0 1 0\n")
    assert [found.looks[k].colour for k in set(found.parts[0].look)] == [(0, 1, 0, 1)]


def test_vertices_without_a_colour_are_white_among_coloured_ones(tmp_path: Path) -> None:
    count = len(BALL.vertices)
    second = "".join("f {} {} {}\n".format(*(face + 1 + count).tolist()) for face in BALL.faces)
    found = read(tmp_path, PLAIN + coloured("v {} {} {} {} {} {}\n") + second)
    part = found.parts[0]
    assert (part.tint[: len(BALL.faces)] == 255).all()
    assert np.array_equal(part.tint[len(BALL.faces) :, :, :3], SIDES[BALL.faces])
    assert (part.look == 0).all()


def test_a_block_of_polypaint_colours_the_vertices_before_it(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nv 0 0 1\nv 1 0 1\nv 0 1 1\n"
    text += "#MRGB 00ff000000ff0000\n#MRGB 00ff0000\nf 4 5 6\n"
    tint = read(tmp_path, text).parts[0].tint
    assert tint[0].tolist() == [[255] * 4] * 3
    assert tint[1].tolist() == [[255, 0, 0, 255]] * 3
    assert read(tmp_path, text.replace("00ff0000\nf 4", "00ff00\nf 4")).problems


SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def test_faces_with_and_without_texture_coordinates(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (0, 0, 255)).save(tmp_path / "t.png")
    text = "mtllib a.mtl\n" + SQUARE + "usemtl m\nf 1/1 2/2 3/3\nf 1 3/3 4/4\nf 1/9 2/2 3/3\n"
    found = read(tmp_path, text, a_mtl="newmtl m\nKd 0.5 0.5 0.5\nmap_Kd t.png\n")
    part = found.parts[0]
    pictures = [found.looks[k].picture is not None for k in part.look]
    assert pictures == [True, False, False]
    assert found.looks[part.look[1]].colour == (0.5, 0.5, 0.5, 1)
    assert part.uv[0].tolist() == [[0, 0], [1, 0], [1, 1]]
    assert np.isnan(part.uv[1, 0]).all()
    assert found.problems == [
        "line 13: `1/9` names a texture coordinate that does not exist, as 1 corners do"
    ]


def test_materials_change_where_the_file_says(tmp_path: Path) -> None:
    text = "usemtl early\nmtllib a.mtl\n" + SQUARE + "f 1 2 3\nusemtl red\nf 1 2\nf 1 2 3 4\n"
    text += "usemtl blue\nusemtl red\nf 1 3 4\nusemtl blue\nf 2 3 4\n"
    materials = "newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\nd 0.5\n"
    found = read(tmp_path, text, a_mtl=materials)
    colours = [None if k < 0 else found.looks[k].colour for k in found.parts[0].look]
    assert colours == [None, *[(1, 0, 0, 1)] * 3, (0, 0, 1, 0.5)]
    assert found.problems == ["colours left out: no material file defines `early`"]


def test_an_empty_file_has_no_faces(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "v 0 0 0\n", "hello\n", "f", "v"):
        part: Part = read(tmp_path, text).parts[0]
        assert part.faces.shape == (0, 3)
