"""Damaged files: a reader returns what it read or says what is wrong, whatever the bytes."""

import struct
import time
from pathlib import Path

import pytest
from bounded import many, one_gibibyte
from hypothesis import given
from hypothesis import strategies as st

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.obj import read_obj
from ultrashape_cli.meshfiles.off import read_off
from ultrashape_cli.meshfiles.parts import Unreadable
from ultrashape_cli.meshfiles.ply import read_ply
from ultrashape_cli.meshfiles.stl import read_stl

POINTS = "0 0 0;1 0 0;1 1 0;0.25 0.25 1e-3;0 1 -2.5"
HEAD = "element vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
HEAD += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
HEAD += "element face 3\nproperty list uchar int vertex_indices\n"
HEAD += "property list uchar float texcoord\nend_header\n"
ROWS = [[0, 1, 2, 3, 4], [0, 1, 2], [2, 3, 4, 1]]


def obj() -> bytes:
    lines = ["mtllib a.mtl", *(f"v {p} 1 0.5 0" for p in POINTS.split(";")), "vt 0 1", "vt .5 .5"]
    lines += ["usemtl m", "#MRGB ff00ff00ff00ff00", "f 1/1 2/2 3/1 4/2 5/-1", "f -1 -2 \\", "-3"]
    return "\r\n".join([*lines, "f 1//1 2//1 3", ""]).encode()


def ply(order: str) -> bytes:
    names = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}
    head = f"ply\nformat {names[order]} 1.0\ncomment TextureFile t.png\n{HEAD}".encode()
    if not order:
        body = "".join(f"{p} 1 2 3\n" for p in POINTS.split(";"))
        body += "".join(f"{len(r)} {' '.join(map(str, r))} 2 0 1\n" for r in ROWS)
        return head + body.encode()
    for point in POINTS.split(";"):
        head += struct.pack(f"{order}3f3B", *map(float, point.split()), 1, 2, 3)
    for row in ROWS:
        head += struct.pack(f"{order}B{len(row)}iB", len(row), *row, 2 * len(row))
        head += struct.pack(f"{order}{2 * len(row)}f", *range(2 * len(row)))
    return head


def off() -> bytes:
    lines = ["COFF", "5 3 0", *(f"{p} 1 0 0 1" for p in POINTS.split(";"))]
    return "\n".join([*lines, "5 0 1 2 3 4", "3 0 1 2 9 9 9", "# x", "4 2 3 4 1", ""]).encode()


def stl(binary: bool) -> bytes:
    if binary:
        triangle = bytes(12) + bytes(range(36)) + b"\x1f\x80"
        return b"solid COLOR=abcd".ljust(80) + b"\x03\0\0\0" + 3 * triangle
    corners = "".join(f"vertex {p}\n" for p in POINTS.split(";")[:3])
    facet = f"facet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\n"
    return f"solid x\n{3 * facet}endsolid x\n".encode()


SEEDS = {
    "obj": (read_obj, [obj()]),
    "ply": (read_ply, [ply(""), ply("<"), ply(">")]),
    "off": (read_off, [off()]),
    "stl": (read_stl, [stl(True), stl(False)]),
}
WORDS = st.sampled_from([b"\0", b"\xff\xff\xff\xff", b"\x7f", b"-1", b" 99999999999 ", b"nan",
                         b"1e999", b"\n", b"#", b"\\\n", b",", b"/", b"0", b" "])  # fmt: skip
EDITS = st.tuples(st.sampled_from("fidrt"), st.floats(0, 1), st.binary(max_size=6) | WORDS)


def damaged(data: bytes, edits) -> bytes:
    for kind, part, word in edits:
        at = int(part * len(data))
        if kind == "f":  # other bytes in their place
            data = data[:at] + word + data[at + len(word) :]
        elif kind == "i":
            data = data[:at] + word + data[at:]
        elif kind == "d":
            data = data[:at] + data[at + max(len(word), 1) :]
        elif kind == "r":  # a piece once more
            data = data[:at] + data[at // 2 : at] + data[at:]
        else:
            data = data[:at]
    return data


def check(folder: Path, name: str, seed: int, edits) -> None:
    read, seeds = SEEDS[name]
    path = folder / f"a.{name}"
    path.write_bytes(damaged(seeds[seed % len(seeds)], edits))
    began = time.monotonic()
    for colours in (True, False):
        try:
            with one_gibibyte():
                found = read(path, colours=colours)
        except Unreadable:
            continue
        for part in found.parts:
            faces = len(part.faces)
            assert part.look.shape == (faces,)
            assert faces == 0 or (part.faces.min() >= 0 and part.faces.max() < len(part.vertices))
            assert part.uv is None or part.uv.shape == (faces, 3, 2)
            assert part.tint is None or part.tint.shape == (faces, 3, 4)
            assert faces == 0 or (part.look.min() >= -1 and part.look.max() < len(found.looks))
            assert Mesh(part.vertices, part.faces).triangles.shape == (faces, 3, 3)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", SEEDS)
def test_the_files_are_whole_before_they_are_damaged(tmp_path: Path, name: str) -> None:
    read, seeds = SEEDS[name]
    for seed in seeds:
        (tmp_path / "a").write_bytes(seed)
        assert len(read(tmp_path / "a", colours=True).parts[0].faces) >= 3


CASES = (st.integers(0, 2), st.lists(EDITS, min_size=1, max_size=4))


@pytest.mark.parametrize("name", SEEDS)
@many(45)
@given(*CASES)
def test_damage_is_refused_or_read(tmp_path: Path, name: str, seed: int, edits) -> None:
    check(tmp_path, name, seed, edits)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
@many(1500)
@given(*CASES)
def test_much_damage_is_refused_or_read(tmp_path: Path, name: str, seed: int, edits) -> None:
    check(tmp_path, name, seed, edits)
