from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.errors import UsageError
from ultrashape_cli.preparation import discover
from ultrashape_cli.preparation.discover import find_meshes, new_records, slug


def _write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def _records(folder: Path, known: list[Record] = ()) -> list[Record]:
    return list(new_records(find_meshes(folder), {record.id: record for record in known}))


def _gltf(path: Path, *uris: object) -> Path:
    return _write(path, json.dumps({"buffers": [{"uri": uri} for uri in uris]}))


def test_meshes_are_found_in_all_folders_in_order(tmp_path: Path) -> None:
    kept = [_write(tmp_path / name) for name in ("a.OBJ", "sub/b.glb", "sub/deep/c.3mf")]
    for name in ("readme.txt", ".hidden.obj", "sub/c.mtl", "obj"):
        _write(tmp_path / name)
    assert find_meshes(tmp_path) == kept


def test_a_folder_without_meshes_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "folder.obj").mkdir()
    with pytest.raises(UsageError, match="no meshes in") as caught:
        find_meshes(tmp_path)
    assert "GLTF" in caught.value.hint


def test_neither_folders_nor_pipes_are_meshes(tmp_path: Path) -> None:
    kept = _write(tmp_path / "x.obj" / "a.obj")
    os.mkfifo(tmp_path / "pipe.obj")
    assert find_meshes(tmp_path) == [kept]


def test_links_to_folders_are_not_followed_and_links_to_files_are(tmp_path: Path) -> None:
    file = _write(tmp_path / "in" / "a.obj")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b.obj").symlink_to(file)
    assert find_meshes(tmp_path / "in") == [file, tmp_path / "in" / "b.obj"]


@pytest.mark.parametrize("target", ["absent.obj", "loop.obj"])
def test_a_link_to_nothing_gets_a_record(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.obj").symlink_to(tmp_path / target)
    (record,) = _records(tmp_path)
    assert record.source["bytes"] == -1
    assert record.id.startswith("loop-")


def test_a_dataset_inside_the_folder_is_not_its_own_source(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.obj")
    _write(tmp_path / "data" / "records" / "a-1.json")
    _write(tmp_path / "data" / "meshes" / "a-1.ply")
    other = _write(tmp_path / "zoo" / "meshes" / "b.obj")
    _write(tmp_path / "zoo" / "records" / "vinyl.txt")
    assert find_meshes(tmp_path) == [file, other]


def test_same_names_in_two_folders_are_two_assets(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "model.obj", "1")
    _write(tmp_path / "b" / "model.obj", "2")
    first, second = _records(tmp_path)
    assert first.id != second.id
    assert first.id[:6] == second.id[:6] == "model-"


def test_the_same_content_twice_is_one_asset_with_a_duplicate(tmp_path: Path) -> None:
    paths = [_write(tmp_path / name, "1") for name in ("a.obj", "b.obj", "c/a.obj")]
    (record,) = _records(tmp_path)
    assert record.source["path"] == str(paths[0])
    assert record.duplicates == [str(path) for path in paths[1:]]


def test_ids_do_not_depend_on_the_folder_or_the_time(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "x.obj", "1")
    os.utime(_write(tmp_path / "b" / "x.obj", "1"), (1, 1))
    assert _records(tmp_path / "a")[0].id == _records(tmp_path / "b")[0].id


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("Grün 01", "grun-01"),
        ("模型", "asset"),
        ("../../etc", "etc"),
        ("<script>", "script"),
        ("a" * 300, "a" * 40),
        ("-", "asset"),
    ],
)
def test_slugs_are_short_plain_ascii(stem: str, expected: str) -> None:
    found = slug(stem)
    assert found == expected
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_name_that_is_no_unicode_survives_its_record(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.obj"))
    path.write_text("1")
    (record,) = _records(tmp_path)
    dataset = Dataset(tmp_path / "data")
    dataset.write_record(record)
    assert dataset.load_records()[record.id].source["path"] == str(path)


def test_unchanged_files_are_not_hashed_again(tmp_path: Path, monkeypatch) -> None:
    _write(tmp_path / "a.obj", "1")
    changed = _write(tmp_path / "b.obj", "2")
    known = _records(tmp_path)
    changed.write_text("33")
    hashed = []
    real = discover._hash
    monkeypatch.setattr(discover, "_hash", lambda files: hashed.append(files) or real(files))
    again = _records(tmp_path, known)
    assert hashed == [[changed]]
    assert again[0].id == known[0].id
    assert again[1].id != known[1].id


def test_a_known_asset_keeps_its_steps(tmp_path: Path) -> None:
    _write(tmp_path / "a.obj", "1")
    (record,) = _records(tmp_path)
    record.steps["watertight"] = StepRecord("done", "key")
    assert _records(tmp_path, [record])[0].steps == record.steps


def test_a_renamed_file_stays_the_asset_it_was(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.obj", "1")
    (record,) = _records(tmp_path)
    moved = path.rename(tmp_path / "z.obj")
    (again,) = _records(tmp_path, [record])
    assert again.id == record.id
    assert again.source["path"] == str(moved)


@pytest.mark.parametrize("name", ["mesh.bin", "my mesh.bin"])
def test_the_buffers_of_a_gltf_are_part_of_its_content(tmp_path: Path, name: str) -> None:
    _gltf(tmp_path / "a" / "x.gltf", name.replace(" ", "%20"))
    _gltf(tmp_path / "b" / "x.gltf", name.replace(" ", "%20"))
    _write(tmp_path / "a" / name, "11")
    buffer = _write(tmp_path / "b" / name, "22")
    first, second = _records(tmp_path)
    assert first.id != second.id
    # The GLTF itself stays as it is: the change has to be seen at the buffer.
    buffer.write_text("333")
    again = _records(tmp_path, [first, second])
    assert again[0].id == first.id
    assert again[1].id not in (first.id, second.id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"buffers": 3}',
        '{"buffers": [3]}',
        '{"buffers": [{"uri": 3}]}',
        '{"buffers": [{"uri": "a\\u0000b"}]}',
        '{"buffers": [{"uri": "data:,x"}, {}]}',
        "[" * 100_000,
    ],
)
def test_a_hostile_gltf_gets_a_record(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "x.gltf", text)
    (record,) = _records(tmp_path)
    assert record.source["bytes"] == len(text)


def test_a_gltf_does_not_read_outside_its_folder(tmp_path: Path) -> None:
    secret = _write(tmp_path / "secret", "1")
    _gltf(tmp_path / "in" / "x.gltf", "../secret", str(secret))
    (record,) = _records(tmp_path / "in")
    secret.write_text("2")
    assert _records(tmp_path / "in")[0].id == record.id


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_gets_a_record(tmp_path: Path) -> None:
    _write(tmp_path / "a.obj").chmod(0)
    (record,) = _records(tmp_path)
    assert record.source["bytes"] == -1


def test_a_file_that_cannot_be_read_gets_a_record(tmp_path: Path, monkeypatch) -> None:
    def refuse(files: list[Path]) -> str:
        raise PermissionError(13, "refused")

    _write(tmp_path / "a.obj")
    monkeypatch.setattr(discover, "_hash", refuse)
    (record,) = _records(tmp_path)
    assert (record.source["bytes"], record.id[:2]) == (-1, "a-")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch, caplog) -> None:
    _write(tmp_path / "a.obj")
    _write(tmp_path / "locked" / "b.obj")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_meshes(tmp_path) == [tmp_path / "a.obj"]
    assert "locked" in caplog.text


def test_files_of_formats_that_are_not_read_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.fbx", "b.FBX", "c.usdz", "notes.txt", "d.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="no meshes"):
        find_meshes(tmp_path)
    assert "2 .fbx, 1 .usdz; export them as GLB or OBJ" in caplog.text
