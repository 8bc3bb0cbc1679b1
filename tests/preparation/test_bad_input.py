"""Whatever lies in a folder of models, each file gets a record and the others are prepared."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES, load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.preparation.quality import measure_source
from ultrashape_cli.synthetic.figurines import make_figurine

PLY = (
    "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {}\nproperty list uchar int vertex_indices\nend_header\n"
)
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def _gltf(uri: str, count: int = 3) -> str:
    accessor = {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3"}
    return json.dumps(
        {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "accessors": [accessor],
            "bufferViews": [{"buffer": 0, "byteLength": 12 * count}],
            "buffers": [{"uri": uri, "byteLength": 36}],
        }
    )


TEXTS: dict[str, str | bytes] = {
    "empty.obj": "",
    "text.glb": "a letter to a friend",
    "text.stl": "a letter to a friend, longer than the header of an STL file has to be ...........",
    "points.obj": TRIANGLE,
    "nan.obj": "v nan 0 0\nv 1 nan 0\nv 0 1 inf\nf 1 2 3\n",
    "range.obj": TRIANGLE + "f 1 2 99\n",
    "huge_index.obj": TRIANGLE + "f 1 2 999999999999999999999\n",
    "zero_area.obj": "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
    "giant.stl": bytes(80) + b"\xff\xff\xff\xff" + bytes(50),
    "giant_ascii.ply": PLY.format("ascii", 200_000_000, 200_000_000) + "0 0 0\n1 0 0\n",
    "giant_binary.ply": PLY.format("binary_little_endian", 2**31, 2**31) + "x" * 40,
    "giant.off": "OFF\n2000000000 2000000000 0\n0 0 0\n1 0 0\n",
    "giant.glb": struct.pack("<4sII", b"glTF", 2, 2**31) + bytes(100),
    "giant.gltf": _gltf("three.bin", 10**9),
    "outside.gltf": _gltf("../secret.bin"),
    "absolute.gltf": _gltf("/etc/passwd"),
    "no_archive.3mf": "PK but nothing more",
}


def _bomb(path: Path, megabytes: int, lie: bool) -> None:
    vertices = b'<vertex x="0" y="0" z="0"/>' * 40_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", "<Relationships/>")
        with archive.open("3D/3dmodel.model", "w") as file:
            for _ in range(megabytes):
                file.write(vertices)
    if lie:
        content = bytearray(path.read_bytes())
        at = content.rfind(b"PK\x01\x02")
        content[at + 24 : at + 28] = struct.pack("<I", 1000)
        path.write_bytes(content)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """One good figurine among every kind of broken file."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    (folder / "three.bin").write_bytes(bytes(36))
    for name, content in TEXTS.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    save_mesh(make_figurine(0, 24), folder / "good.ply")
    (folder / "cut.ply").write_bytes((folder / "good.ply").read_bytes()[:-500])
    _bomb(folder / "bomb.3mf", 120, lie=False)
    _bomb(folder / "lying_bomb.3mf", 120, lie=True)
    (folder / "loop.obj").symlink_to(folder / "loop.obj")
    (folder / "folder_loop").symlink_to(folder)
    (folder / "directory.obj").mkdir()
    return folder


def _one_by_one(paths: list[Path]) -> list[tuple[float, str]]:
    """Returns peak memory in GiB and the message of loading each file, in a process of its own.

    Not by `getrusage`: its peak begins with that of the process that started this one.
    """
    code = (
        "import sys, json, warnings\n"
        "from ultrashape_cli.meshfiles.load import load_mesh\n"
        "from ultrashape_cli.errors import MeshError\n"
        "warnings.simplefilter('ignore')\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_mesh(path); text = ''\n"
        "    except MeshError as error: text = error.message\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    peak = next(int(l.split()[1]) for l in lines if l.startswith('VmHWM')) / 2**20\n"
        "    print(json.dumps([peak, text]))\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


def test_every_broken_file_is_refused_in_less_than_a_gibibyte(models: Path) -> None:
    paths = sorted(p for p in models.iterdir() if p.suffix in MESH_SUFFIXES and not p.is_dir())
    for path, (peak, message) in zip(paths, _one_by_one(paths), strict=True):
        assert bool(message) == (path.name != "good.ply"), path.name
        assert not message or str(path) in message
        assert peak < 1, f"{path.name} took {peak:.2f} GiB"


def test_a_batch_records_each_and_goes_on(ushape, models: Path, tmp_path: Path) -> None:
    options = ("--until", "quality", "--set", "watertight.resolution=32", "--workers", 2)
    result = ushape("prepare", models, "-o", tmp_path / "data", "--json", *options)
    assert result.code == 1
    body = json.loads(result.out)
    broken = len(TEXTS) + 4
    assert body["counts"] == {"made": 1, "skipped": 0, "failed": broken}
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    assert report["failures_by_cause"] == {"error": broken}
    by_name = {Path(f["source"]).name: f["message"] for f in report["failures"]}
    assert set(by_name) == {*TEXTS, "cut.ply", "bomb.3mf", "lying_bomb.3mf", "loop.obj"}
    for name, text in {
        "outside.gltf": "outside its own folder",
        "absolute.gltf": "outside its own folder",
        "cut.ply": "truncated",
        "giant_ascii.ply": "truncated",
        "bomb.3mf": "times its size",
        "lying_bomb.3mf": "damaged",
        "loop.obj": "Too many levels of symbolic links",
        "points.obj": "has no faces",
    }.items():
        assert text in by_name[name], by_name[name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    save_mesh(make_figurine(0, 24), tmp_path / "a.ply")
    (tmp_path / "a.ply").chmod(0)
    with pytest.raises(MeshError, match="Permission denied"):
        load_mesh(tmp_path / "a.ply")


FIGURINE = make_figurine(0, 16)
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SLOW
@given(data=st.data(), suffix=st.sampled_from([".ply", ".stl", ".glb", ".obj", ".off"]))
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_gives_a_mesh_or_a_mesh_error(tmp_path: Path, data, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    save_mesh(FIGURINE, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        # Most of the meaning lies in the head.
        where = data.draw(st.integers(0, min(len(content) - 1, 400)) | st.integers(0, 10**5))
        content[where % len(content)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(content)))
    path.write_bytes(bytes(content[:cut]))
    try:
        mesh = load_mesh(path)
    except MeshError:
        return
    assert np.isfinite(mesh.vertices[mesh.faces]).all()
    assert 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices)


@SLOW
@given(
    faces=st.lists(st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=24),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 3),
)
def test_any_triangles_can_be_measured(faces, scale: float, seed: int) -> None:
    vertices = np.random.default_rng(seed).integers(-2, 3, (8, 3)) * scale
    mesh = Mesh.from_arrays(vertices, faces)
    if not mesh.extents.max() > 0:
        return
    measured = measure_source(mesh)
    assert measured["boundary_loops"] >= 0
    assert measured["source_size"] == pytest.approx(mesh.extents.max())
    assert 0 <= measured["source_flatness"] <= 1
