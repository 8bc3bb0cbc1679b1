"""STL files whose header lies, that end early, or that other programs made."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.parts import Contents, Unreadable
from ultrashape_cli.meshfiles.stl import read_stl

BALL = trimesh.creation.icosphere(subdivisions=1)
CORNERS = BALL.triangles.astype(np.float32)
COUNT = len(CORNERS)


def binary(header: bytes = b"", count: int = COUNT, tail: bytes = b"", codes=0) -> bytes:
    records = np.zeros(COUNT, [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    records["v"], records["a"] = CORNERS, codes
    return header.ljust(80, b" ")[:80] + struct.pack("<I", count) + records.tobytes() + tail


def text(name: str = "ball", end: str = "endsolid ball\n", corners=CORNERS) -> str:
    out = [f"solid {name}\n"]
    for triangle in corners:
        out.append("  facet normal 0 0 0\n    outer loop\n")
        out += [f"      vertex {x:.9e} {y:.9e} {z:.9e}\n" for x, y, z in triangle.tolist()]
        out.append("    endloop\n  endfacet\n")
    return "".join(out) + end


def read(folder: Path, data: bytes | str) -> Contents:
    data = data if isinstance(data, bytes) else data.encode("latin-1")
    (folder / "a.stl").write_bytes(data)
    return read_stl(folder / "a.stl", colours=True)


def triangles(contents: Contents) -> np.ndarray:
    (part,) = contents.parts
    return part.vertices[part.faces]


TEXT = text()
FILES = {
    "binary": binary(),
    "solid in a binary header": binary(b"solid ball facet vertex\r\n"),
    "no count": binary(count=0),
    "count left open": binary(count=0xFFFFFFFF),
    "count too small": binary(count=COUNT - 3),
    "signature behind": binary(tail=bytes(37)),
    "signature of whole records": binary(tail=b"signed by a notary" * 25),
    "no count and a signature": binary(count=0, tail=bytes(9)),
    "text": TEXT,
    "capitals and crlf": TEXT.upper().replace("\n", "\r\n"),
    "cr": TEXT.replace("\n", "\r"),
    "no endsolid": text(end=""),
    "end solid": text(end="end solid"),
    "a name with keywords": text("Vertex normal facet outer vertex", "endsolid Vertex vertex x\n"),
    "a name that is not ascii": text("Gr\xfc\xdfe"),
    "text before": "; exported\n# vertex list\n\n" + TEXT,
    "no solid": TEXT.partition("\n")[2],
    "byte order mark": "\xef\xbb\xbf" + TEXT,
    "several solids": text("a", "endsolid\n", CORNERS[:30]) + text("b", "end\n", CORNERS[30:]),
    "no ends of loops": TEXT.replace("    endloop\n", ""),
    "on few lines": TEXT.replace("\n   ", " "),
    "end of file mark": TEXT + "\x1a",
}


@pytest.mark.parametrize("kind", FILES)
def test_every_file_holds_the_same_triangles(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, FILES[kind])
    assert np.array_equal(triangles(found).astype(np.float32), CORNERS)
    assert not found.looks
    assert not found.problems
    assert bool(found.notes) == (kind == "no endsolid")


@pytest.mark.parametrize("form", ["stl", "stl_ascii"])
def test_a_plain_file_reads_as_trimesh_reads_it(tmp_path: Path, form: str) -> None:
    BALL.export(tmp_path / "a.stl", file_type=form)
    other = trimesh.load(tmp_path / "a.stl", process=False)
    found = triangles(read_stl(tmp_path / "a.stl", colours=False))
    assert found == pytest.approx(other.triangles, rel=1e-6)


REFUSED = {
    "short": (bytes(40), "is no STL file"),
    "letter": (b"Dear friend, this is a letter and no mesh. " * 9, "text without facets"),
    "cut": (binary()[:-1000], "truncated: it has 60 of 80 triangles"),
    "cut in a record": (binary()[:-1010], "truncated: it has 59 of 80 triangles"),
    "cut text": (TEXT[:-120].encode(), "truncated: it ends inside facet 80"),
    "cut in a number": (TEXT[: TEXT.rindex("e-") + 2].encode(), "inside facet 80"),
    "cut behind a word": (TEXT[: TEXT.rindex("vertex") + 7].encode(), "inside facet 80"),
    "comma": (
        TEXT.replace(".", ",").encode(),
        "line 4: `-5,257310867e-01` is no number: it has a decimal",
    ),
    "word": (TEXT.replace("vertex", "vertex x", 1).encode(), "line 4: `x` is no number"),
    "utf-16": (TEXT.encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    data, message = REFUSED[kind]
    with pytest.raises(Unreadable) as error:
        read(tmp_path, data)
    assert message in str(error.value)


def test_files_one_behind_the_other_are_all_read(tmp_path: Path) -> None:
    found = triangles(read(tmp_path, 3 * binary()))
    assert np.array_equal(found, np.concatenate(3 * [CORNERS]))


def test_loops_of_more_corners_are_polygons(tmp_path: Path) -> None:
    ring = np.array([[0, 0, 0], [2, 1, 0], [0, 2, 0], [0.5, 1, 0]])
    part = read(tmp_path, text(corners=[ring, CORNERS[0]])).parts[0]
    assert len(part.faces) == 3
    assert Mesh(part.vertices, part.faces.copy()).area_faces[:2].sum() == pytest.approx(1.5)


def colours(contents: Contents) -> np.ndarray:
    part = contents.parts[0]
    assert [contents.looks[k].colour for k in set(part.look)] == [(1, 1, 1, 1)]
    assert (part.tint == part.tint[:, :1]).all()
    return part.tint[:, 0]


def test_colours_of_magics_and_viscam(tmp_path: Path) -> None:
    codes = np.zeros(COUNT, np.uint16)
    codes[:3] = 31, 31 << 5, 31 << 10
    codes[3] = 0x8000
    found = colours(read(tmp_path, binary(b"COLOR=\x10\x20\x30\xff", codes=codes)))
    assert found[:5].tolist() == [
        [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [16, 32, 48, 255], [0, 0, 0, 255]
    ]  # fmt: skip
    found = colours(read(tmp_path, binary(b"solid COLOR=\x10\x20\x30\xff", codes=0)))
    assert (found == [16, 32, 48, 255]).all()
    found = colours(read(tmp_path, binary(codes=codes | np.uint16(0x8000) * (codes > 0))))
    assert found[:5].tolist() == [
        [0, 0, 255, 255], [0, 255, 0, 255], [255, 0, 0, 255], [0, 0, 0, 255], [255] * 4
    ]  # fmt: skip
    assert read(tmp_path, binary(codes=31)).parts[0].tint is None
