"""Sources in S3: brought one by one, and again only when the storage says that they changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trimesh
from PIL import Image
from s3_server import BUCKET, s3_server

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.packing.location import Location
from ultrashape_cli.preparation.remote import _candidates, find_remote

ADDRESS = f"s3://{BUCKET}/models"
QUICK = ("--until", "render", "--resolution", 32, "--set", "render.size=32", "--views", 1,
         "--set", "render.supersample=1", "--workers", 1, "--no-progress")  # fmt: skip


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    with s3_server(monkeypatch):
        yield Location(ADDRESS)


def put(place: Location, name: str, data: bytes) -> None:
    place.fs.pipe_file(f"{place.root}/{name}", data)


def ball(radius: float, kind: str = "ply") -> bytes:
    found = trimesh.creation.icosphere(2, radius).export(file_type=kind)
    return found if isinstance(found, bytes) else found.encode()


def painted() -> bytes:
    """A box with corners of a texture, as OBJ."""
    box = trimesh.creation.box()
    lines = ["mtllib C:\\work\\paint.mtl", "usemtl paint", "vt 0.5 0.5"]
    lines += [f"v {x} {y} {z}" for x, y, z in box.vertices]
    lines += [f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in box.faces]
    return "\n".join(lines).encode()


def picture(tmp_path: Path) -> bytes:
    file = tmp_path / "red.png"
    Image.new("RGB", (4, 4), (250, 10, 10)).save(file)
    return file.read_bytes()


@pytest.mark.slow
def test_sources_come_one_by_one_with_what_belongs_to_them(
    ushape, place: Location, tmp_path: Path
) -> None:
    put(place, "a/round.ply", ball(1.0))
    put(place, "b/painted.obj", painted())
    put(place, "b/paint.mtl", b"newmtl paint\nmap_Kd maps/red.png\n")
    put(place, "b/maps/red.png", picture(tmp_path))
    put(place, "b/notes.txt", b"not a mesh")
    data = tmp_path / "data"
    result = ushape("prepare", ADDRESS, "-o", data, *QUICK)
    assert result.code == 0, result.err
    records = Dataset(data).load_records()
    assert sorted(r.source["path"] for r in records.values()) == [
        f"{ADDRESS}/a/round.ply", f"{ADDRESS}/b/painted.obj"]  # fmt: skip
    surfaces = {r.source["path"][-3:]: r.steps["render"].measurements["surface"]
                for r in records.values()}  # fmt: skip
    assert surfaces == {"ply": "clay", "obj": "colours"}
    # Nothing of the sources stays here.
    assert not (data / ".sources").exists()

    # Unchanged, they are not even read.
    place.fs.rm_file(f"{place.root}/b/paint.mtl")
    result = ushape("prepare", ADDRESS, "-o", data, *QUICK, "--json")
    assert json.loads(result.out)["counts"]["skipped"] == 2
    # One changed, one went.
    put(place, "a/round.ply", ball(2.0))
    place.fs.rm_file(f"{place.root}/b/painted.obj")
    result = ushape("prepare", ADDRESS, "-o", data, *QUICK)
    assert result.code == 0
    stale = {r.id.partition("-")[0]: r.stale for r in Dataset(data).load_records().values()
             if r.stale}  # fmt: skip
    assert stale == {"round": "edited", "painted": "deleted"}


def test_one_that_vanishes_costs_one_record(ushape, place: Location, tmp_path: Path) -> None:
    put(place, "round.ply", ball(1.0))
    put(place, "other.ply", ball(0.5))
    data = tmp_path / "data"
    quick = ("--set", "watertight.max_file_gib=0.000001")
    result = ushape("prepare", ADDRESS, "-o", data, *QUICK, *quick)
    assert result.code == 1
    assert "allowed" in result.err
    result = ushape("prepare", ADDRESS, "-o", data, *QUICK, "--set", "watertight.max_file_gib=1")
    assert result.code == 0, result.err


def test_what_cannot_be_reached_is_told(ushape, place: Location, tmp_path: Path) -> None:
    result = ushape("prepare", f"s3://{BUCKET}/nothing", "-o", tmp_path / "data", *QUICK)
    assert result.code == 1
    assert "there is nothing at" in result.err
    put(place, "notes.txt", b"x")
    result = ushape("prepare", ADDRESS, "-o", tmp_path / "data", *QUICK)
    assert result.code == 2
    assert "no meshes at" in result.err
    assert not (tmp_path / "data").exists()
    result = ushape("prepare", tmp_path / "no-folder", "-o", tmp_path / "data")
    assert result.code == 2
    assert "is not there" in result.err


def test_states_tell_contents_apart(place: Location) -> None:
    put(place, "a.ply", ball(1.0))
    put(place, "b.ply", ball(1.0))
    put(place, "c.ply", ball(0.5))
    a, b, c = (file.source()["sha256"] for file in find_remote(ADDRESS))
    assert a == b != c


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("maps/red.png", ["maps/red.png", "red.png"]),
        ('"red one.png"', ["red one.png"]),
        ("C:\\work\\red.png", ["red.png"]),
        ("../../etc/passwd", ["passwd"]),
        ("/etc/passwd", ["passwd"]),
        ("..", []),
    ],
)
def test_names_lead_nowhere_else(named: str, found: list[str]) -> None:
    assert _candidates(named) == found
