"""The collections of others, by recorded pieces of their indexes that were made up by hand."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ultrashape_cli.collections import local, objaverse, objaverse_xl, thingi10k
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.errors import DatasetError, DependencyError

ANNOTATIONS = {
    "aa01": {
        "uid": "aa01", "name": "Lamp", "license": "by", "faceCount": 1200, "animationCount": 0,
        "user": {"username": "maker1", "displayName": "Maker One"},
        "viewerUrl": "https://example.org/aa01", "uri": "https://api.example.org/aa01",
        "categories": [{"name": "furniture-home"}], "tags": [{"name": "lamp"}, {"name": "retro"}],
        "archives": {"glb": {"size": 4321, "faceCount": 1200}},
    },
    "aa02": {
        "uid": "aa02", "name": "Walker", "license": "by-nc-sa", "faceCount": 90,
        "animationCount": 2, "user": {"username": "maker2"}, "categories": [], "tags": [],
        "uri": "https://api.example.org/aa02", "archives": None,
    },
    "aa03": {"uid": "aa03", "name": None, "license": None, "user": None},
}  # fmt: skip
PATHS = {"aa01": "glbs/000-001/aa01.glb", "aa02": "glbs/000-001/aa02.glb",
         "aa03": "glbs/000-002/aa03.glb", "aa04": "glbs/000-002/aa04.glb"}  # fmt: skip


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "hf-objaverse-v1"
    (folder / "metadata").mkdir(parents=True)
    with gzip.open(folder / "object-paths.json.gz", "wt") as file:
        json.dump(PATHS, file)
    for part in ("000-001", "000-002"):
        with gzip.open(folder / "metadata" / f"{part}.json.gz", "wt") as file:
            json.dump({u: a for u, a in ANNOTATIONS.items() if part in PATHS[u]}, file)
    return folder


def check_objaverse(items: list[SourceItem]) -> None:
    # aa04 has no annotation, so no licence is known and nothing is said of it.
    assert [item.uid for item in items] == ["aa01", "aa02", "aa03"]
    lamp, walker, bare = items
    assert lamp.url.endswith("/datasets/allenai/objaverse/resolve/main/glbs/000-001/aa01.glb")
    assert (lamp.licence, lamp.author, lamp.category) == ("CC-BY-4.0", "Maker One",
                                                          "furniture-home")  # fmt: skip
    assert (lamp.tags, lamp.faces, lamp.bytes) == (("lamp", "retro"), 1200, 4321)
    assert lamp.source_url == "https://example.org/aa01"
    assert (walker.licence, walker.author, walker.animated) == ("CC-BY-NC-SA-4.0", "maker2", True)
    assert (bare.licence, bare.author, bare.faces) == ("", "", None)


def test_objaverse_by_a_copy_of_its_index(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_objaverse(list(objaverse.read_items(index)))
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert next(objaverse.read_items(index)).url.startswith("http://mirror/datasets/allenai/")
    (index / "metadata/000-001.json.gz").write_bytes(b"torn")
    with pytest.raises(DatasetError, match="000-001"):
        list(objaverse.read_items(index))


def test_objaverse_by_its_client_a_part_at_a_time(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_annotations(uids: list[str]) -> dict:
        asked.append(sorted(uids))
        return {uid: ANNOTATIONS[uid] for uid in uids if uid in ANNOTATIONS}

    client = ModuleType("objaverse")
    client.BASE_PATH = str(index.parent)  # type: ignore[attr-defined]
    client.load_uids = lambda: list(PATHS)  # type: ignore[attr-defined]
    client.load_annotations = load_annotations  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "objaverse", client)
    check_objaverse(list(objaverse.read_items(None)))
    assert asked == [["aa01", "aa02"], ["aa03", "aa04"]]


@pytest.mark.parametrize("name", ["objaverse", "objaverse-xl", "thingi10k"])
def test_an_absent_client_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("objaverse", "objaverse.xl", "thingi10k"):
        monkeypatch.setitem(sys.modules, module, None)
    items = {
        "objaverse": lambda: objaverse.read_items(None),
        "objaverse-xl": lambda: objaverse_xl.read_items(None),
        "thingi10k": lambda: thingi10k.read_items(None, None, Path("m.jsonl")),
    }[name]
    with pytest.raises(DependencyError) as caught:
        list(items())
    assert "pipx inject" in (caught.value.hint or "")


COMMIT = "0" * 40
XL = {
    "fileIdentifier": [
        f"https://github.com/maker/things/blob/{COMMIT}/cad/my part.stl",
        "https://www.thingiverse.com/thing:12/files?fileId=34",
        "https://3d-api.si.edu/content/document/3d_package:x/y.glb",
        "https://sketchfab.com/3d-models/aa01",
        "https://github.com/maker/things/wiki",
    ],
    "source": ["github", "thingiverse", "smithsonian", "sketchfab", "github"],
    "license": ["MIT License", "Creative Commons - Attribution - Non-Commercial", "CC0", "by",
                None],
    "fileType": ["stl", "stl", "glb", "glb", float("nan")],
    "sha256": ["a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64],
}  # fmt: skip


def test_objaverse_xl_leads_to_where_the_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    package, client = ModuleType("objaverse"), ModuleType("objaverse.xl")
    client.get_annotations = lambda: XL  # type: ignore[attr-defined]
    package.xl = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "objaverse", package)
    monkeypatch.setitem(sys.modules, "objaverse.xl", client)
    github, thing, museum = objaverse_xl.read_items(None)
    assert github.url == f"https://raw.githubusercontent.com/maker/things/{COMMIT}/cad/my part.stl"
    assert (github.licence, github.author, github.series) == ("MIT", "maker", "maker/things")
    assert github.sha256 == "a" * 64
    assert (thing.url, thing.kind) == ("https://www.thingiverse.com/download:34", ".stl")
    assert (thing.licence, thing.series) == ("CC-BY-NC-4.0", "thing:12")
    assert (museum.licence, museum.kind) == ("CC0-1.0", ".glb")


def test_objaverse_xl_by_a_copy_of_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"a.parquet": {k: v[:1] for k, v in XL.items()},
              "b.parquet": {k: v[1:] for k, v in XL.items()}}  # fmt: skip
    pandas = SimpleNamespace(read_parquet=lambda path: tables[path.name])
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    with pytest.raises(DatasetError, match="no parquet files"):
        list(objaverse_xl.read_items(tmp_path))
    for name in tables:
        (tmp_path / name).touch()
    assert len(list(objaverse_xl.read_items(tmp_path))) == 3


def check_thingi10k(items: list[SourceItem]) -> None:
    assert [item.uid for item in items] == ["101", "102"]
    one, other = items
    assert (one.licence, one.author, one.series) == ("CC-BY-SA-3.0", "maker1", "thing:7")
    assert (one.category, one.tags, one.faces) == ("Art", ("Sculptures", "bust"), 44)
    assert one.source_url == "https://www.thingiverse.com/thing:7"
    assert (other.licence, other.author, other.series) == ("", "", "")
    assert {item.path for item in items} == {"raw_meshes/101.stl", "raw_meshes/102.obj"}


def test_thingi10k_by_its_archive_and_by_its_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw_meshes").mkdir()
    for name in ("101.stl", "102.obj"):
        (tmp_path / "raw_meshes" / name).write_text("x")
    tables = {
        "contextual_data.csv": "Thing ID,Date,Category,Sub-category,Name,Author,License\n"
        "7,,Art,Sculptures,Bust,maker1,Creative Commons - Attribution - Share Alike\n",
        "input_summary.csv": "ID,Thing ID,Link\n101,7,x.stl\n102,,y.obj\n103,7,gone.stl\n",
        "geometry_data.csv": "file_id,num_faces\n101,44\n",
        "tag_data.csv": "Thing ID,Tag\n7,bust\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    manifest = tmp_path / "m.jsonl"
    check_thingi10k(list(thingi10k.read_items(tmp_path, None, manifest)))
    rows = [
        {"file_id": 101, "thing_id": 7, "file_path": str(tmp_path / "raw_meshes/101.stl"),
         "author": "maker1", "license": "Creative Commons - Attribution - Share Alike",
         "category": "Art", "subcategory": "Sculptures", "name": "Bust", "tags": ["bust"],
         "num_facets": 44},
        {"file_id": 102, "thing_id": None, "file_path": str(tmp_path / "raw_meshes/102.obj"),
         "author": "unknown", "license": "unknown", "category": "unknown",
         "subcategory": "unknown", "name": "unknown", "tags": [], "num_facets": None},
    ]  # fmt: skip
    client = ModuleType("thingi10k")
    asked = []
    client.init = lambda **more: asked.append(more)  # type: ignore[attr-defined]
    client.dataset = lambda: rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "thingi10k", client)
    check_thingi10k(list(thingi10k.read_items(None, tmp_path / "cache", manifest)))
    assert asked == [{"variant": "raw", "cache_dir": str(tmp_path / "cache")}]
    with pytest.raises(DatasetError, match="no raw_meshes"):
        list(thingi10k.read_items(tmp_path / "raw_meshes", None, manifest))


def test_shapenet_of_a_users_folder(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    with pytest.raises(DatasetError, match="no models"):
        list(local.shapenet_items(tmp_path, manifest))
    for name in ("001/m1/models/model_normalized.obj", "001/m2/model.obj", "002/m3/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("v 0 0 0")
    (tmp_path / "taxonomy.json").write_text('[{"synsetId": "001", "name": "chair, seat"}]')
    one, two = local.shapenet_items(tmp_path, manifest)
    assert (one.uid, one.path) == ("001/m1", "001/m1/models/model_normalized.obj")
    assert (one.licence, one.category, one.tags) == ("LicenseRef-ShapeNet", "chair", ("seat",))
    assert two.path == "001/m2/model.obj"
    (tmp_path / "taxonomy.json").write_text("{")
    with pytest.raises(DatasetError, match="taxonomy"):
        list(local.shapenet_items(tmp_path, manifest))


def test_abc_of_a_users_chunks(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    with pytest.raises(DatasetError, match="ABC"):
        list(local.abc_items(tmp_path, manifest))
    document = "0123456789abcdef01234567"
    for number in ("00000050", "00000051"):
        path = tmp_path / f"abc_0000_obj_v00/{number}/{number}_{document}_trimesh_000.obj"
        path.parent.mkdir(parents=True)
        path.write_text("v 0 0 0")
    (tmp_path / "other.obj").write_text("")
    items = list(local.abc_items(tmp_path, manifest))
    assert [item.uid[:8] for item in items] == ["00000050", "00000051"]
    assert {(item.licence, item.series) for item in items} == {("LicenseRef-Onshape", document)}
