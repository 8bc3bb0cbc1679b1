from __future__ import annotations

import json
from pathlib import Path

import pytest
from packs import fill

from ultrashape_cli.data.layout import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return fill(Dataset(tmp_path / "data"), range(12))


def test_packed_pushed_pulled_and_unpacked_it_is_the_same(
    ushape, dataset: Dataset, tmp_path: Path
) -> None:
    root = dataset.root
    dry = ushape("data", "pack", str(root), "--dry-run")
    assert (dry.code, "would pack 12 assets" in dry.err) == (0, True)
    assert not (tmp_path / "data.pack").exists()
    made = json.loads(ushape("data", "pack", str(root), "--json").out)
    assert made["counts"]["assets"] == 12
    pack, shelf, here = (str(tmp_path / name) for name in ("data.pack", "shelf", "here"))
    assert made["outputs"]["pack"] == pack
    would = ushape("data", "push", pack, shelf, "--dry-run")
    assert "would send 4 files" in would.err
    assert not Path(shelf).exists()
    for command in (("push", pack, shelf), ("pull", shelf, here), ("verify", here)):
        result = json.loads(ushape("data", *command, "--json").out)
        assert (result["status"], result["digest"]) == ("ok", made["digest"])
    assert "would bring 0 files" in ushape("data", "pull", shelf, here, "--dry-run").err
    out = tmp_path / "again"
    assert ushape("data", "unpack", here, "-o", str(out)).code == 0
    assert Dataset(out).load_records().keys() == dataset.load_records().keys()
    assert Dataset(out).read_split("train") == dataset.read_split("train")


def test_what_is_damaged_is_named_and_exits_with_1(
    ushape, dataset: Dataset, tmp_path: Path
) -> None:
    ushape("data", "pack", str(dataset.root))
    tar = next((tmp_path / "data.pack/shards").glob("common*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    found = ushape("data", "verify", str(tmp_path / "data.pack"))
    assert found.code == 1
    assert f"{tar.stem}: the tar file has changed" in found.err
    dataset.samples("asset-002").unlink()
    packed = ushape("data", "pack", str(dataset.root), "-o", str(tmp_path / "other"), "--json")
    assert packed.code == 1
    body = json.loads(packed.out)
    assert body["left_out"] == {"asset-002": "`samples/asset-002.npz` is missing"}
    assert body["counts"]["assets"] == 11


def test_nothing_is_written_into_what_is_read(ushape, dataset: Dataset, tmp_path: Path) -> None:
    root = str(dataset.root)
    assert ushape("data", "pack", root, "-o", f"{root}/meshes").code == 2
    ushape("data", "pack", root)
    pack = str(tmp_path / "data.pack")
    assert ushape("data", "unpack", pack, "-o", f"{pack}/data").code == 2
    assert ushape("data", "unpack", pack, "-o", root).code == 2
    assert ushape("data", "pull", pack, pack).code == 2
    assert ushape("data", "push", root, str(tmp_path / "shelf")).code == 2
    assert ushape("data", "pull", "nowhere://x", str(tmp_path / "y")).code == 2
    assert ushape("data", "pull", str(tmp_path / "nothing"), str(tmp_path / "y")).code == 1
    assert not (tmp_path / "y").exists()
