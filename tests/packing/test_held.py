"""What places hold that is not the pack's: it is never replaced, removed or mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from packs import fill

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.packing.layout import read_pack


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(Dataset(tmp_path / "data"), range(6))
    fill(Dataset(tmp_path / "other"), range(50, 54))
    return tmp_path


@pytest.fixture
def data(ushape, here: Path):
    def call(*arguments: object, code: int = 0) -> str:
        result = ushape("data", *arguments)
        assert result.code == code, result.err
        return result.err

    call("pack", "data")
    call("pack", "other")
    return call


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name", ["pack.json", "notes.txt", "shards/all-aaaaaaaaaaaaaaaa.tar", "records/mine.json"]
)
@pytest.mark.parametrize("way", ["pack", "push", "pull"])
def test_what_is_no_pack_is_left_alone(data, here: Path, way: str, name: str) -> None:
    mine = here / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text('{"name": "npm"}')
    before = content(here / "mine")
    command = {"pack": ("pack", "data", "-o", "mine"), "push": ("push", "data.pack", "mine"),
               "pull": ("pull", "data.pack", "mine")}[way]  # fmt: skip
    assert "mine" in data(*command, code=2)
    assert content(here / "mine") == before


def test_packs_do_not_go_where_they_are_read(data, here: Path) -> None:
    for target in ("data", "data.pack/sub", "data.pack"):
        data("push", "data.pack", target, code=2)
    assert not (here / "data/shards").exists()


def test_another_dataset_is_replaced_only_by_force(data, here: Path) -> None:
    data("push", "data.pack", "shelf")
    assert "holds another dataset" in data("push", "other.pack", "shelf", code=2)
    assert "was made of" in data("pack", "other", "-o", "data.pack", code=2)
    assert "was packed here" in data("pull", "shelf", "other.pack", code=2)
    told = data("push", "other.pack", "shelf", "--force")
    assert f"was {read_pack(here / 'data.pack').digest[:16]} with 6 assets" in told
    told = data("pull", "shelf", "data.pack", "--force")
    assert "with 6 assets" in told
    assert "came from elsewhere" in data("pack", "data", "-o", "data.pack", code=2)
    data("pack", "data", "-o", "data.pack", "--force")
    # A later version of the same needs no force, nor does a dataset that was moved.
    data("push", "data.pack", "versions")
    fill(Dataset(here / "data"), range(7, 9))
    shutil.move("data", "moved")
    data("pack", "moved", "-o", "data.pack")
    assert "was " in data("push", "data.pack", "versions")


def test_damage_that_sizes_do_not_show_can_be_mended(data, here: Path) -> None:
    data("push", "data.pack", "shelf")
    tar = next((here / "shelf/shards").glob("all-*.tar"))
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1] + b"x")
    told = data("pull", "shelf", "copy", code=1)
    assert "data push PACK ADDRESS --check" in told
    assert "is damaged there" in data("verify", f"file://{here}/shelf", code=1)
    assert "sent 0 files" in data("push", "data.pack", "shelf")
    assert "sent 1 files" in data("push", "data.pack", "shelf", "--check")
    assert tar.read_bytes() == whole
    data("pull", "shelf", "copy")
    data("verify", f"file://{here}/shelf")


EDITS = {
    "shorter": lambda value: value | {"shards": value["shards"][1:]},
    "empty": lambda value: value | {"shards": []},
    "twice": lambda value: value | {"shards": value["shards"][:1] + value["shards"]},
    "counts": lambda value: value | {"counts": value["counts"] | {"assets": 5}},
    "digest": lambda value: value | {"digest": "0" * 64},
    "consistent": lambda value: value | {
        "shards": value["shards"][1:],
        "counts": {"assets": 0, "shards": 1, "bytes": sum(
            value["shards"][1][key] for key in ("size", "index_size"))},
    },
    "size": lambda value: value | {
        "shards": [value["shards"][0] | {"size": value["shards"][0]["size"] + 1},
                   *value["shards"][1:]],
        "counts": value["counts"] | {"bytes": value["counts"]["bytes"] + 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_pack_is_not_believed(data, here: Path, name: str) -> None:
    shutil.copytree("data.pack", "edited")
    file = here / "edited/pack.json"
    file.write_text(json.dumps(EDITS[name](json.loads(file.read_text()))))
    data("verify", "edited", code=1)
    data("push", "data.pack", "shelf")
    data("pull", "shelf", "copy")
    before = content(here / "copy")
    data("pull", "edited", "copy", code=1)
    assert content(here / "copy").items() >= before.items()


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "\\xff\\xfe"])
def test_brackets_in_brackets_are_no_bug(data, here: Path, text: str) -> None:
    (here / "data.pack/pack.json").write_text(text)
    for command in (("verify", "data.pack"), ("unpack", "data.pack", "-o", "x"),
                    ("pull", "data.pack", "x")):  # fmt: skip
        assert "damaged" in data(*command, code=1)


def test_assets_of_a_former_pack_do_not_linger(data, here: Path) -> None:
    data("unpack", "data.pack", "-o", "again")
    told = data("unpack", "other.pack", "-o", "again", code=2)
    assert "has 6 assets that the pack lacks, such as `asset-000`" in told
    data("unpack", "other.pack", "-o", "again", "--force")
    fresh = here / "fresh"
    data("unpack", "other.pack", "-o", fresh)
    assert content(here / "again") == content(fresh)


def test_a_full_disk_is_called_one(data, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from ultrashape_cli.packing import write

    def full(self, data) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write._HashedFile, "write", full)
    told = data("pack", "data", "-o", "new", code=1)
    assert "cannot write `new`: no space left on device" in told
