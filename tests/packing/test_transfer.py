from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packs import fill

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import UsageError
from ultrashape_cli.packing.layout import Pack, PackError, missing_here, read_pack
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import (
    missing_there,
    pull_pack,
    push_pack,
    read_remote_pack,
)
from ultrashape_cli.packing.verify import verify_pack
from ultrashape_cli.packing.write import plan_pack, write_pack


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    dataset = fill(Dataset(tmp_path / "data"), range(24))
    return write_pack(plan_pack(dataset, 30_000), tmp_path / "pack")


@pytest.fixture
def root(tmp_path: Path, pack: Pack) -> Path:
    return tmp_path / "pack"


@pytest.fixture
def shelf(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "shelf"))


def test_only_what_is_missing_is_sent_and_brought(
    root: Path, pack: Pack, shelf: Location, tmp_path: Path
) -> None:
    sent = push_pack(root, pack, shelf)
    assert sum(piece.size for piece in sent) == pack.size
    assert push_pack(root, pack, shelf) == []
    found = read_remote_pack(shelf)
    assert found == pack
    assert pull_pack(found, shelf, tmp_path / "here") == sent
    assert verify_pack(tmp_path / "here", read_pack(tmp_path / "here")) == {}
    assert pull_pack(found, shelf, tmp_path / "here") == []
    # A later pack: its new shards, and the old ones go.
    data = fill(Dataset(tmp_path / "data"), range(200, 202))
    later = write_pack(plan_pack(data, 30_000), root)
    more = push_pack(root, later, shelf)
    assert 0 < len(more) < len(sent)
    assert pull_pack(later, shelf, tmp_path / "here") == more
    left = {path.stem for path in (tmp_path / "here/shards").iterdir()}
    assert left == {shard.stem for shard in later.shards}


def test_a_damaged_shard_is_never_sent(root: Path, pack: Pack, shelf: Location) -> None:
    tar = root / pack.shards[0].tar
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)
    with pytest.raises(PackError, match="is not what was packed"):
        push_pack(root, pack, shelf)
    assert shelf.read("pack.json") is None


def test_what_was_damaged_there_is_not_taken(
    root: Path, pack: Pack, shelf: Location, tmp_path: Path
) -> None:
    push_pack(root, pack, shelf)
    tar = tmp_path / "shelf" / pack.shards[0].tar
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1] + b"x")
    with pytest.raises(PackError, match="is damaged there"):
        pull_pack(pack, shelf, tmp_path / "here")
    assert not (tmp_path / "here" / pack.shards[0].tar).exists()
    tar.write_bytes(whole[:99])
    with pytest.raises(StorageError, match="ends after 99 of"):
        pull_pack(pack, shelf, tmp_path / "here")
    # A cut copy is sent again, and what came of it before is gone on with, or dropped.
    assert [piece.name for piece in push_pack(root, pack, shelf)] == [pack.shards[0].tar]
    pull_pack(pack, shelf, tmp_path / "here")
    assert verify_pack(tmp_path / "here", pack) == {}


def test_a_file_goes_on_where_it_was_cut(
    root: Path, pack: Pack, shelf: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_pack(root, pack, shelf)
    part = tmp_path / "here" / f"{pack.shards[0].tar}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((root / pack.shards[0].tar).read_bytes()[:5000])
    asked = []
    real = shelf.fs.cat_file

    def cat_file(path: str, start: int, end: int) -> bytes:
        asked.append((path.rpartition("/")[2], start))
        return real(path, start=start, end=end)

    monkeypatch.setattr(shelf.fs, "cat_file", cat_file)
    pull_pack(pack, shelf, tmp_path / "here")
    assert (f"{pack.shards[0].stem}.tar", 5000) in asked
    assert verify_pack(tmp_path / "here", pack) == {}


@pytest.mark.parametrize("way", ["push", "pull"])
def test_killed_at_any_moment_it_ends_whole(
    way: str, root: Path, pack: Pack, shelf: Location, tmp_path: Path
) -> None:
    if way == "pull":
        push_pack(root, pack, shelf)
    one, other = (root, shelf.root) if way == "push" else (shelf.root, tmp_path / "here")
    code = (
        "import sys,time,pathlib,ultrashape_cli.packing.location as l,"
        "ultrashape_cli.packing.transfer as t\n"
        "l.CHUNK=2000\n"
        "real=l.Location.chunks\n"
        "def slow(*a):\n"
        "    for data in real(*a):\n"
        "        time.sleep(.001); yield data\n"
        "l.Location.chunks=slow\n"
        "way,one,other=sys.argv[1:]\n"
        "say=lambda done,name:print(done,flush=True) or time.sleep(.002)\n"
        "if way=='push':\n"
        "    from ultrashape_cli.packing.layout import read_pack\n"
        "    p=pathlib.Path(one); t.push_pack(p,read_pack(p),l.Location(other),say)\n"
        "else:\n"
        "    s=l.Location(one); t.pull_pack(t.read_remote_pack(s),s,pathlib.Path(other),say)\n"
    )
    draw = random.Random(0)
    for _ in range(6):
        command = [sys.executable, "-c", code, way, str(one), str(other)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        # What is told to be there is whole, at every moment.
        place = Location(str(other))
        if place.read("pack.json") is not None:
            assert verify_pack(Path(other), pack) == {}
    result = push_pack(root, pack, shelf) if way == "push" else pull_pack(
        pack, shelf, tmp_path / "here")  # fmt: skip
    assert len(result) <= 2 * len(pack.shards)
    assert verify_pack(Path(other), read_pack(Path(other))) == {}
    assert missing_here(pack.shards, Path(other)) == []
    assert not list((Path(other) / "shards").glob("*.part"))


def test_there_is_no_pack(tmp_path: Path, shelf: Location) -> None:
    with pytest.raises(PackError, match="no packed dataset at"):
        read_remote_pack(shelf)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf/pack.json").write_text("{")
    with pytest.raises(PackError, match="is damaged"):
        read_remote_pack(shelf)


def test_addresses_are_judged_before_anything_is_asked() -> None:
    for address, words in (
        ("ftp://x/y", "cannot reach `ftp://`"),
        ("s3://key:secret@bucket/x", "holds a secret"),
        ("sftp://me:word@host/x", "holds a secret"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            Location(address)
        assert "word@" not in str(caught.value)
        assert "key:" not in str(caught.value)


def test_where_nothing_can_be_written_it_says_so(root: Path, pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="file") as caught:
        push_pack(root, pack, Location(str(tmp_path / "file")))
    assert caught.type.__module__.startswith("ultrashape_cli")


def test_nothing_is_missing_twice(root: Path, pack: Pack, shelf: Location) -> None:
    missing = missing_there(pack, shelf)
    assert len(missing) == 2 * len(pack.shards) == len({piece.name for piece in missing})
