from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packs import fill

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.packing.layout import (
    Pack,
    PackError,
    is_dataset_file,
    parse_pack,
    read_index,
    read_pack,
)
from ultrashape_cli.packing.unpack import unpack_pack
from ultrashape_cli.packing.verify import verify_pack
from ultrashape_cli.packing.write import plan_pack, tar_header, write_pack

LIMIT = 30_000


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return fill(Dataset(tmp_path / "data"), range(24))


def pack(dataset: Dataset, root: Path, limit: int = LIMIT) -> Pack:
    return write_pack(plan_pack(dataset, limit), root)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.startswith(".")}  # fmt: skip


def test_unpacked_it_is_what_was_packed(dataset: Dataset, tmp_path: Path) -> None:
    made = pack(dataset, tmp_path / "pack")
    assert (made.assets, len(made.shards) > 3) == (24, True)
    unpack_pack(tmp_path / "pack", read_pack(tmp_path / "pack"), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(dataset.root)
    # Once more: nothing is written.
    assert unpack_pack(tmp_path / "pack", made, tmp_path / "again")[0] == 0


def test_the_same_dataset_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    pack(dataset, tmp_path / "one")
    for path in dataset.root.rglob("*"):
        os.utime(path, (1, 1))
    pack(dataset, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # The digest is of what is in it, not of how it is cut.
    assert pack(dataset, tmp_path / "three", 10**9).digest == read_pack(tmp_path / "one").digest


def test_any_tar_reads_it(dataset: Dataset, tmp_path: Path) -> None:
    long = "asset-" + "x" * 120
    os.rename(dataset.mesh("asset-000"), dataset.mesh(long))
    record = dataset.read_record("asset-000")
    assert record is not None
    record.id = long
    record.steps = {"watertight": record.steps["watertight"]}
    record.steps["watertight"].outputs = dataset.output_sizes([dataset.mesh(long)])
    dataset.write_record(record)
    made = pack(dataset, tmp_path / "pack")
    for shard in made.shards:
        with tarfile.open(tmp_path / "pack" / shard.tar) as file:
            members = list(read_index(tmp_path / "pack" / shard.index))
            assert [m.name for m in members] == file.getnames()
            for member in members:
                found = file.extractfile(member.name)
                assert found is not None
                assert found.read() == (dataset.root / member.name).read_bytes()
    assert {f"meshes/{long}.ply"} <= {
        m.name for s in made.shards for m in read_index(tmp_path / "pack" / s.index)
    }
    assert made.shard_of("asset-003") in made.shards


def test_packed_again_only_touched_shards_change(dataset: Dataset, tmp_path: Path) -> None:
    before = pack(dataset, tmp_path / "pack")
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pack/shards").iterdir()}
    assert pack(dataset, tmp_path / "pack") == before
    assert times == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pack/shards").iterdir()}
    fill(dataset, range(100, 101))
    after = pack(dataset, tmp_path / "pack")
    old = {shard.stem for shard in before.shards}
    new = [shard for shard in after.shards if shard.stem not in old]
    # Its own, maybe in two halves, and the one of the lists.
    assert 2 <= len(new) <= 3
    left = {path.name for path in (tmp_path / "pack/shards").iterdir()}
    assert left == {f"{s.stem}.{end}" for s in after.shards for end in ("tar", "jsonl")}
    assert pack(dataset, tmp_path / "fresh").to_json() == after.to_json()


def test_a_file_of_the_users_in_the_folder_of_shards_stays(
    dataset: Dataset, tmp_path: Path
) -> None:
    mine = tmp_path / "pack/shards/notes.tar"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    pack(dataset, tmp_path / "pack")
    assert mine.read_text() == "mine"


def test_an_asset_that_is_not_whole_is_left_out_and_named(dataset: Dataset, tmp_path: Path) -> None:
    dataset.samples("asset-003").write_bytes(b"cut")
    dataset.mesh("asset-004").unlink()
    record = json.loads(dataset.record_path("asset-005").read_text())
    record["steps"]["sample"]["outputs"] = {"../../etc/passwd": 1}
    dataset.record_path("asset-005").write_text(json.dumps(record))
    plan = plan_pack(dataset, LIMIT)
    assert plan.left_out.keys() == {"asset-003", "asset-004", "asset-005"}
    assert "has 3 bytes, its record says" in plan.left_out["asset-003"]
    assert write_pack(plan, tmp_path / "pack").assets == 21


@pytest.mark.parametrize("name", ["a", "renders/x/view_000.png", "x" * 99, "y" * 100, "ä"])
def test_headers_are_those_of_tarfile(name: str) -> None:
    for size in (0, 1, 123_456, (8 << 30) - 1, 8 << 30):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o644
        plain = len(name) < 100 and name.isascii() and size < 8 << 30
        kind = tarfile.USTAR_FORMAT if plain else tarfile.PAX_FORMAT
        assert tar_header(name, size) == entry.tobuf(kind, "utf-8", "surrogateescape")


def test_a_file_that_changes_meanwhile_is_told(dataset: Dataset, tmp_path: Path) -> None:
    plan = plan_pack(dataset, LIMIT)
    dataset.mesh("asset-007").write_bytes(b"x")
    with pytest.raises(DatasetError, match="`asset-007` changed while it was packed"):
        write_pack(plan, tmp_path / "pack")
    assert not list((tmp_path / "pack/shards").glob(".*"))
    dataset.mesh("asset-007").unlink()
    with pytest.raises(DatasetError, match=r"`meshes/asset-007\.ply` changed while it was packed"):
        write_pack(plan, tmp_path / "pack")


def test_an_edit_of_the_same_length_is_told(dataset: Dataset, tmp_path: Path) -> None:
    plan = plan_pack(dataset, LIMIT)
    os.utime(dataset.mesh("asset-007"), (1, 1))
    with pytest.raises(DatasetError, match="`asset-007` changed while it was packed"):
        write_pack(plan, tmp_path / "pack")


def test_two_do_not_pack_into_one_folder(dataset: Dataset, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, ultrashape_cli.packing.layout as layout\n"
        "with layout.alone(pathlib.Path(sys.argv[1])):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pack")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UsageError, match="another process writes"):
            pack(dataset, tmp_path / "pack")
        other.communicate()
    pack(dataset, tmp_path / "pack")


def test_every_flipped_byte_is_found_and_named(dataset: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "pack"
    made = pack(dataset, root)
    assert verify_pack(root, made) == {}
    shard = made.shards[1]
    member = next(m for m in read_index(root / shard.index) if m.size > 10)
    data = bytearray((root / shard.tar).read_bytes())
    data[member.offset + 3] ^= 1
    (root / shard.tar).write_bytes(data)
    assert verify_pack(root, made) == {shard.stem: [f"`{member.name}` has changed"]}
    with pytest.raises(PackError, match=f"{member.name}` in .* is damaged"):
        unpack_pack(root, made, tmp_path / "out")
    assert not (tmp_path / "out" / member.name).exists()
    data[member.offset + 3] ^= 1
    data[200] ^= 1  # in a header
    (root / shard.tar).write_bytes(data)
    assert verify_pack(root, made) == {shard.stem: ["the tar file has changed"]}
    (root / shard.tar).unlink()
    (root / made.shards[0].index).write_bytes(b"[")
    assert verify_pack(root, made) == {
        made.shards[0].stem: [f"`{made.shards[0].stem}.jsonl` has changed"],
        shard.stem: [f"`{shard.stem}.tar` is not there"],
    }


@pytest.mark.parametrize(
    "line",
    [
        b'["a","../x",0,1,"00"]',
        b'["a","/etc/passwd",0,1,"00"]',
        b'["a","meshes/../../x",0,1,"00"]',
        b'["a","records/.claims/x",0,1,"00"]',
        b'["a","meshes/a.ply",-1,1,"00"]',
        b'["a","meshes/a.ply",0,1]',
        b"{}",
    ],
)
def test_an_index_that_leads_out_or_is_no_index_is_refused(
    dataset: Dataset, tmp_path: Path, line: bytes
) -> None:
    root = tmp_path / "pack"
    made = pack(dataset, root)
    (root / made.shards[0].index).write_bytes(line + b"\n")
    with pytest.raises(PackError, match="is damaged"):
        unpack_pack(root, made, tmp_path / "out/in")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("data", "pack")] == [
        "out"
    ]


def test_an_index_that_lies_of_sizes_allocates_nothing(dataset: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "pack"
    made = pack(dataset, root)
    line = f'["a","meshes/a.ply",0,{10**15},"00"]\n'
    (root / made.shards[0].index).write_text(line)
    with pytest.raises(PackError, match="is damaged"):
        unpack_pack(root, made, tmp_path / "out")


def test_a_dataset_that_was_made_here_is_not_unpacked_into(
    dataset: Dataset, tmp_path: Path
) -> None:
    made = pack(dataset, tmp_path / "pack")
    with pytest.raises(UsageError, match="was made there"):
        unpack_pack(tmp_path / "pack", made, dataset.root)


def test_what_is_no_pack_says_so(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no packed dataset \(no pack.json\)"):
        read_pack(dataset.root)
    made = pack(dataset, tmp_path / "pack")
    for change in (
        {"shards": [{"stem": "../x"}]},
        {"shards": 3},
        {"digest": None, "shards": [None]},
    ):
        with pytest.raises(PackError, match="is damaged"):
            parse_pack(made.to_json() | change, "p")
    evil = made.to_json()
    evil["shards"][0]["stem"] = "../../0-0000000000000000"
    with pytest.raises(PackError, match="is damaged"):
        parse_pack(evil, "p")
    with pytest.raises(PackError, match="later format"):
        parse_pack(made.to_json() | {"format": 9}, "p")


def test_only_files_of_a_dataset_are_its_files() -> None:
    for name in ("meshes/a.ply", "renders/a/view_000.png", "data_list/train.json", "render.json"):
        assert is_dataset_file(name)
    for name in ("", "meshes", "x/a", "../a", "meshes/../a", "/meshes/a", "meshes//a", "runs/a",
                 "meshes\\a", "records/.lock", "renders/a/b/c", None, "meshes/a\0"):  # fmt: skip
        assert not is_dataset_file(name), name
