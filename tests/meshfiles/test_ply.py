"""PLY files of many programs, beside a plain twin."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import load_optional, missing_reason
from ultrashape_cli.meshfiles.parts import Contents, Unreadable
from ultrashape_cli.meshfiles.ply import read_ply
from ultrashape_cli.meshfiles.save import save_mesh

BALL = trimesh.creation.icosphere(subdivisions=1)
SIDES = np.where(BALL.vertices[:, :1] > 0, [[220, 20, 20]], [[20, 20, 220]])
CODES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I",
         "float": "f", "double": "d"}  # fmt: skip
XYZ = [("x", "double"), ("y", "double"), ("z", "double")]
INDICES = [("vertex_indices", "uchar int")]


class Ply:
    """Writes elements in any of the three formats."""

    def __init__(self, order: str = "<", comments: tuple[str, ...] = ()) -> None:
        kind = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
        self.order = order
        self.head = ["ply", f"format {kind} 1.0", *(f"comment {c}" for c in comments)]
        self.body: list[bytes] = []

    def add(self, name: str, properties, rows, count: int | None = None) -> "Ply":
        self.head.append(f"element {name} {len(rows) if count is None else count}")
        lists = [" " in kind for _, kind in properties]
        self.head += [f"property {'list ' * a_list}{kind} {label}"
                      for (label, kind), a_list in zip(properties, lists, strict=True)]  # fmt: skip
        for row in rows:
            words: list[str] = []
            for (_, kind), a_list, value in zip(properties, lists, row, strict=True):
                codes = [CODES[word] for word in kind.split()]
                values = [len(value), *value] if a_list else [value]
                kinds = [codes[0], *codes[1:] * (len(values) - 1)]
                if self.order:
                    self.body.append(struct.pack(self.order + "".join(kinds), *values))
                words += map(str, values)
            if not self.order:
                self.body.append(" ".join(words).encode() + b"\n")
        return self

    def bytes(self, end: str = "\n") -> bytes:
        return end.join([*self.head, "end_header", ""]).encode("latin-1") + b"".join(self.body)

    def read(self, folder: Path, end: str = "\n") -> Contents:
        (folder / "a.ply").write_bytes(self.bytes(end))
        return read_ply(folder / "a.ply", colours=True)


def points(*more) -> list[tuple]:
    columns = [np.asarray(column).reshape(len(BALL.vertices), -1).tolist() for column in more]
    return [sum(map(tuple, row), ()) for row in zip(BALL.vertices.tolist(), *columns, strict=True)]


def triangles(*more) -> list[tuple]:
    return [(face, *(column[k] for column in more)) for k, face in enumerate(BALL.faces.tolist())]


def is_ball(contents: Contents) -> bool:
    (part,) = contents.parts
    return np.array_equal(part.vertices, BALL.vertices) and np.array_equal(part.faces, BALL.faces)


@pytest.mark.parametrize("order", ["", "<", ">"])
@pytest.mark.parametrize("kinds", ["uchar int", "char short", "ushort uint", "int ushort",
                                   "short uchar", "uint double"])  # fmt: skip
def test_all_types_and_orders(tmp_path: Path, order: str, kinds: str) -> None:
    made = Ply(order).add("vertex", XYZ, points())
    made.add("face", [("vertex_index", kinds)], triangles())
    assert is_ball(made.read(tmp_path))


def test_a_plain_file_reads_as_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    save_mesh(Mesh.from_arrays(BALL.vertices, BALL.faces), path)
    assert is_ball(read_ply(path, colours=True))
    BALL.export(path)
    part = read_ply(path, colours=False).parts[0]
    other = trimesh.load(path, process=False)
    assert np.array_equal(part.vertices, other.vertices)
    assert np.array_equal(part.faces, other.faces)
    if not missing_reason("open3d"):
        other = load_optional("open3d").io.read_triangle_mesh(str(path))
        assert np.array_equal(part.vertices, np.asarray(other.vertices))
        assert np.array_equal(part.faces, np.asarray(other.triangles))


@pytest.mark.parametrize("order", ["", "<"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_headers_of_any_line_end_and_language(tmp_path: Path, order: str, end: str) -> None:
    made = Ply(order, ("Gr\xfc\xdfe", "end_header comes later"))
    # The first byte of the data is a line feed.
    made.add("face", [("flag", "uchar"), *INDICES], [(10, *row) for row in triangles()])
    made.add("vertex", XYZ, points())
    assert is_ball(made.read(tmp_path, end))


@pytest.mark.parametrize("order", ["", "<", ">"])
def test_polygons_of_all_sizes_and_elements_between(tmp_path: Path, order: str) -> None:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 1, 1.0, 0.4)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).tolist()
    corners = [(*xy, z) for z in (-0.3, 0.3) for xy in ring]
    sides = [[i, (i + 1) % 10, (i + 1) % 10 + 10, i + 10] for i in range(10)]
    faces = [(list(range(10))[::-1],), (list(range(10, 20)),), *((side,) for side in sides)]
    made = Ply(order).add("camera", [("a", "float"), ("b", "uchar float")], [(1, [1, 2]), (2, [])])
    made.add("vertex", XYZ, corners).add("face", INDICES, faces)
    part = made.add("edge", [("a", "int")], [(1,)]).read(tmp_path).parts[0]
    assert len(part.faces) == 36
    assert Mesh(part.vertices, part.faces).volume == pytest.approx(
        10 * 0.5 * 0.4 * np.sin(np.pi / 5) * 0.6
    )


@pytest.mark.parametrize("order", ["", ">"])
def test_triangle_strips(tmp_path: Path, order: str) -> None:
    grid = [(x, y, 0.0) for x in range(4) for y in range(2)]
    strips = [([0, 1, 2, 3, 4, 5, -1, 4, 5, 6, 7],), ([0, 1, 2],)]
    made = Ply(order).add("vertex", XYZ, grid)
    part = made.add("tristrips", [("vertex_indices", "int int")], strips).read(tmp_path).parts[0]
    mesh = Mesh(part.vertices, part.faces)
    assert len(mesh.faces) == 7
    assert mesh.area_vectors[:, 2] == pytest.approx([-0.5] * 7)


COLOURED = {
    "bytes": ("red green blue", "uchar", SIDES),
    "with alpha": ("red green blue alpha", "uchar", np.c_[SIDES, np.full(len(SIDES), 99)]),
    "diffuse": ("diffuse_red diffuse_green diffuse_blue", "uchar", SIDES),
    "floats": ("red green blue", "float", SIDES / 255),
    "shorts": ("r g b", "ushort", SIDES * 257),
    "bytes in shorts": ("r g b", "ushort", SIDES),
}


@pytest.mark.parametrize("order", ["", "<"])
@pytest.mark.parametrize("kind", COLOURED)
def test_colours_of_vertices(tmp_path: Path, kind: str, order: str) -> None:
    names, number, values = COLOURED[kind]
    columns = [(name, number) for name in names.split()]
    made = Ply(order).add("vertex", XYZ + columns, points(values))
    found = made.add("face", INDICES, triangles()).read(tmp_path)
    part = found.parts[0]
    assert np.array_equal(part.tint[..., :3], SIDES[BALL.faces])
    assert (part.tint[..., 3] == (99 if kind == "with alpha" else 255)).all()
    assert [found.looks[k].colour for k in set(part.look)] == [(1, 1, 1, 1)]
    assert read_ply(tmp_path / "a.ply", colours=False).parts[0].tint is None


@pytest.mark.parametrize("order", ["", "<"])
def test_colours_of_faces_go_before_vertices_of_one_colour(tmp_path: Path, order: str) -> None:
    rgb = [(name, "uchar") for name in ("red", "green", "blue")]
    colours = np.random.default_rng(0).integers(0, 256, (len(BALL.faces), 3))
    grey = np.full((len(BALL.vertices), 3), 200)
    made = Ply(order).add("vertex", XYZ + rgb, points(grey))
    made.add("face", INDICES + rgb, triangles(*colours.T.tolist()))
    tint = made.read(tmp_path).parts[0].tint
    assert np.array_equal(tint[:, :, :3], np.repeat(colours[:, None], 3, axis=1))


@pytest.mark.parametrize("order", ["", "<"])
def test_textures_of_corners(tmp_path: Path, order: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "my t.png")
    uv = np.random.default_rng(0).random((len(BALL.faces), 6)).round(3).tolist()
    uv[3] = []
    number = [0] * len(uv)
    number[5:7] = [1, 7]
    columns = [*INDICES, ("texcoord", "uchar float"), ("texnumber", "int")]
    rgb = [(name, "uchar") for name in ("red", "green", "blue")]
    made = Ply(order, ("TextureFile my t.png", "TextureFile gone.png"))
    made.add("vertex", XYZ + rgb, points(SIDES)).add("face", columns, triangles(uv, number))
    found = made.read(tmp_path)
    part = found.parts[0]
    pictures = [found.looks[k].picture for k in part.look]
    assert [k for k, picture in enumerate(pictures) if picture is None] == [3, 5, 6]
    assert pictures[0].data == tmp_path / "my t.png"
    assert part.uv[0].reshape(-1) == pytest.approx(uv[0])
    assert np.isnan(part.uv[3]).all()
    assert (part.tint[0] == 255).all(), "a picture goes before colours"
    assert np.array_equal(part.tint[3, :, :3], SIDES[BALL.faces[3]])
    assert found.problems == ["texture left out: `gone.png` is not beside the mesh"]


@pytest.mark.parametrize("names", ["s t", "u v", "texture_u texture_v"])
def test_textures_of_vertices(tmp_path: Path, names: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "t.png")
    columns = [(name, "float") for name in names.split()]
    made = Ply("<", ("TextureFile t.png",)).add("vertex", XYZ + columns,
                                                points(BALL.vertices[:, :2]))  # fmt: skip
    part = made.add("face", INDICES, triangles()).read(tmp_path).parts[0]
    assert part.uv == pytest.approx(BALL.vertices[BALL.faces][..., :2].astype(np.float32))


SPLAT = [(name, "float") for name in ("x", "y", "z", "f_dc_0", "scale_0", "rot_0")]
REFUSED = {
    "no PLY": (b"hello", "is no PLY file"),
    "no end": (b"ply\nformat ascii 1.0\nelement vertex", "header does not end"),
    "type": (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n",
             "line 4 of its header: `property quad x`"),
    "format": (b"ply\nformat ebcdic 1.0\nend_header\n", "line 2 of its header"),
    "no format": (b"ply\nend_header\n", "has no format"),
    "points": (Ply().add("vertex", XYZ, points()).bytes(), "has no faces, only 42 points"),
    "splats": (Ply().add("vertex", SPLAT, [(0,) * 6]).bytes(), "Gaussian splats"),
    "rows": (Ply().add("vertex", XYZ, points(), 10**15).add("face", INDICES, triangles()).bytes(),
             "truncated: element vertex has 85 of 1,000,000,000,000,000 rows"),
    "cut": (Ply().add("vertex", XYZ, points()).add("face", INDICES, triangles()).bytes()[:-20],
            "truncated: element face has 78 of 80 rows"),
    "cut text": (Ply("").add("vertex", XYZ, points()).add("face", INDICES, triangles(), 81).bytes(),
                 "truncated: element face has 80 of 81 rows"),
    "cut mixed": (Ply().add("vertex", XYZ, points())
                  .add("face", INDICES, [([0, 1, 2, 3],), ([0, 1, 2],)]).bytes()[:-1],
                  "truncated: element face has 1 of 2 rows"),
    "index": (Ply().add("vertex", XYZ, points()).add("face", INDICES, [([0, 1, 42],)]).bytes(),
              "a face uses vertex 42, the file has 42"),
    "comma": (Ply("").add("vertex", XYZ, [("0", "1,5", "0")]).add("face", INDICES, triangles())
              .bytes(), "line 10: `1,5` is no number: it has a decimal comma"),
    "no z": (Ply().add("vertex", XYZ[:2], [(0, 0)]).add("face", INDICES, triangles()).bytes(),
             "no x, y and z"),
    "no corners": (Ply().add("vertex", XYZ, points()).add("face", XYZ, points()).bytes(),
                   "no vertex_indices"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_as_what_it_is(tmp_path: Path, kind: str) -> None:
    data, message = REFUSED[kind]
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(Unreadable) as error:
        read_ply(tmp_path / "a.ply", colours=True)
    assert message in str(error.value)
