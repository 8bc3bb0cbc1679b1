"""OFF files in their many forms, beside a plain twin."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.off import read_off
from ultrashape_cli.meshfiles.parts import Contents, Unreadable

BALL = trimesh.creation.icosphere(subdivisions=1)
V, F = len(BALL.vertices), len(BALL.faces)
SIDES = np.where(BALL.vertices[:, :1] > 0, [[220, 20, 20]], [[20, 20, 220]])


def lines(*columns, first: str = "") -> str:
    parts = [np.asarray(column).reshape(len(columns[0]), -1).tolist() for column in columns]
    rows = [[*chain(*row)] for row in zip(*parts, strict=True)]
    return "".join(first + " ".join(map(str, row)) + "\n" for row in rows)


NORMALS = BALL.vertex_normals
VERTICES, FACES = lines(BALL.vertices), lines(BALL.faces, first="3 ")
PLAIN = f"OFF\n{V} {F} 0\n{VERTICES}{FACES}"
FORMS = {
    "plain": PLAIN,
    "counts on the first line": PLAIN.replace("OFF\n", "OFF "),
    "small letters": PLAIN.lower(),
    "no blank": PLAIN.replace("OFF\n", "OFF"),
    "no edges": PLAIN.replace(f"{F} 0\n", f"{F}\n"),
    "no keyword": PLAIN.replace("OFF\n", ""),
    "comments": "# by hand 3\n" + PLAIN.replace("OFF\n", "OFF # 1 2 3\n\n#\n") + "# end\n",
    "blank lines": PLAIN.replace("\n", "\n \n"),
    "crlf": PLAIN.replace("\n", "\r\n"),
    "cr": PLAIN.replace("\n", "\r"),
    "tabs": PLAIN.replace(" ", "\t"),
    "indented": PLAIN.replace("\n", "\n  "),
    "byte order mark": "\ufeff" + PLAIN,
    "one line": PLAIN.replace("\n", " "),
    "normals": f"NOFF\n{V} {F} 0\n{lines(BALL.vertices, BALL.vertex_normals)}{FACES}",
    "normals unsaid": f"OFF\n{V} {F} 0\n{lines(BALL.vertices, BALL.vertex_normals)}{FACES}",
    "texture coordinates": f"STOFF\n{V} {F} 0\n{lines(BALL.vertices, np.zeros((V, 2)))}{FACES}",
    "colour of a map": f"OFF\n{V} {F} 0\n{VERTICES}{lines(BALL.faces, np.ones(F), first='3 ')}",
}


def read(folder: Path, text: str | bytes) -> Contents:
    (folder / "a.off").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_off(folder / "a.off", colours=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_mesh(tmp_path: Path, form: str) -> None:
    found = read(tmp_path, FORMS[form])
    (part,) = found.parts
    assert np.array_equal(part.vertices, BALL.vertices)
    assert np.array_equal(part.faces, BALL.faces)
    assert not found.looks


def test_a_plain_file_reads_as_trimesh_reads_it(tmp_path: Path) -> None:
    BALL.export(tmp_path / "a.off")
    part = read_off(tmp_path / "a.off", colours=False).parts[0]
    other = trimesh.load(tmp_path / "a.off", process=False)
    assert np.array_equal(part.vertices, other.vertices)
    assert np.array_equal(part.faces, other.faces)


def test_polygons_of_all_sizes(tmp_path: Path) -> None:
    text = "OFF 6 4 0\n0 0 0\n4 0 0\n4 4 0\n1 1 0\n0 4 0\n9 9 9\n"
    part = read(tmp_path, text + "5 0 1 2 3 4 0.5 0.5 1\n4 0 1 2 4\n2 0 1\n3 0 1 2\n").parts[0]
    assert Mesh(part.vertices, part.faces).area_vectors[:, 2].sum() == pytest.approx(10 + 16 + 8)
    assert len(part.faces) == 6
    assert part.tint[0, 0].tolist() == [128, 128, 255, 255]
    assert (part.tint[3:] == 255).all()


ALPHA = np.full((V, 1), 255)
COLOURS = {
    "bytes": f"COFF\n{V} {F} 0\n{lines(BALL.vertices, SIDES, ALPHA)}{FACES}",
    "floats": f"COFF\n{V} {F} 0\n{lines(BALL.vertices, SIDES / 255)}{FACES}",
    "unsaid": f"OFF\n{V} {F} 0\n{lines(BALL.vertices, SIDES)}{FACES}",
    "normals": f"CNOFF\n{V} {F} 0\n{lines(BALL.vertices, NORMALS, SIDES, ALPHA)}{FACES}",
    "textures": f"STCOFF\n{V} {F} 0\n{lines(BALL.vertices, SIDES, np.zeros((V, 2)))}{FACES}",
}


@pytest.mark.parametrize("kind", COLOURS)
def test_colours_of_vertices(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, COLOURS[kind])
    part = found.parts[0]
    assert np.array_equal(part.tint[..., :3], SIDES[BALL.faces])
    assert [look.colour for look in found.looks] == [(1, 1, 1, 1)]
    assert (part.look == 0).all()


@pytest.mark.parametrize("scale", [1, 255])
def test_colours_of_faces(tmp_path: Path, scale: int) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (F, 4))
    rows = lines(BALL.faces, colours / scale, first="3 ")
    tint = read(tmp_path, f"OFF\n{V} {F} 0\n{VERTICES}{rows}").parts[0].tint
    assert np.array_equal(tint[:, 0, :3], colours[:, :3])


@pytest.mark.parametrize(("text", "message"), [
    ("hello", "is no OFF file"),
    ("", "is no OFF file"),
    ("OFF\n", "is no OFF file"),
    ("OFF\nx", "is no OFF file"),
    ("OFF BINARY\n\0\0\0\3", "is binary OFF"),
    ("4OFF\n1 1 1\n", "more than three dimensions"),
    ("OFF\n-1 3 0\n", "no counts"),
    ("OFF\n3 1 0\n0 0 0\n", "truncated: it has 1 of 3 vertices and 0 of 1 faces"),
    ("COFF\n3 1 0\n" + "0 0 0 255 0 0 255\n" * 3, "truncated: it has 3 of 3 vertices and 0 of 1"),
    ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "3 of 3 vertices and 1 of 2 faces"),
    ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n", "3 of 3 vertices and 0 of 1 faces"),
    ("OFF\n99999999999999999999 9e99 0\n0 0 0\n", "truncated"),
    ("OFF\n3 1 0\n0 0 0\n1,5 0 0\n", "line 4: `1,5` is no number: it has a decimal comma"),
    ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "a face uses vertex 3, the file has 3"),
    ("OFF\n3 1 0\n0 0 0 1 0 0 0 1 0\n3 0 1 2 9\n", "1 numbers more than its counts say"),
    (PLAIN.encode("utf-16"), "UTF-16"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, text, message: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_a_colour_map_is_told(tmp_path: Path) -> None:
    rows = lines(BALL.faces, np.full(F, 7), first="3 ")
    (tmp_path / "a.off").write_text(f"OFF\n{V} {F} 0\n{VERTICES}{rows}")
    found = read_off(tmp_path / "a.off", colours=True)
    assert found.problems == ["colours left out: faces name entries of a colour map"]
    assert len(found.parts[0].faces) == F
