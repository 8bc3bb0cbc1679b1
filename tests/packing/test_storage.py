"""Packs on servers: S3 by moto, the Hub by its stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import running_hub
from packs import fill
from s3_server import BUCKET, s3_server

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import UShapeError
from ultrashape_cli.packing.layout import Pack, PackError, read_pack
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import pull_pack, push_pack, read_remote_pack
from ultrashape_cli.packing.verify import verify_pack
from ultrashape_cli.packing.write import plan_pack, write_pack

ADDRESS = f"s3://{BUCKET}/collectibles/v1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset = fill(Dataset(tmp_path / "data"), range(12))
    write_pack(plan_pack(dataset, 30_000), tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def pack(root: Path) -> Pack:
    return read_pack(root)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as address:
        yield address


def test_a_pack_goes_to_s3_and_comes_back(
    server: str, root: Path, pack: Pack, tmp_path: Path
) -> None:
    place = Location(ADDRESS)
    assert len(push_pack(root, pack, place)) == 2 * len(pack.shards)
    assert push_pack(root, pack, Location(ADDRESS)) == []
    found = read_remote_pack(Location(ADDRESS))
    part = tmp_path / "here" / f"{pack.shards[0].tar}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((root / pack.shards[0].tar).read_bytes()[:5000])
    pull_pack(found, Location(ADDRESS), tmp_path / "here")
    assert verify_pack(tmp_path / "here", pack) == {}
    # A byte that flipped there is not taken.
    name = pack.shards[0].tar
    data = bytearray((root / name).read_bytes())
    data[700] ^= 1
    place.fs.pipe_file(f"{place.root}/{name}", bytes(data))
    (tmp_path / "here" / name).unlink()
    with pytest.raises(PackError, match="is damaged there"):
        pull_pack(found, Location(ADDRESS), tmp_path / "here")


def test_a_bucket_that_is_not_there_is_named(server: str, root: Path, pack: Pack) -> None:
    with pytest.raises(StorageError, match="s3://nowhere"):
        push_pack(root, pack, Location("s3://nowhere/x"))
    with pytest.raises(PackError, match="no packed dataset at `s3://nowhere/x`"):
        read_remote_pack(Location("s3://nowhere/x"))


def test_without_credentials_the_variables_are_named(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match="no credentials") as caught:
        read_remote_pack(Location(ADDRESS))
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("kind", "text", "words", "hint"),
    [
        ("PermissionError", "Access Denied", "refused: Access Denied", "check AWS_ACCESS_KEY_ID"),
        ("OSError", "[Errno 5] An error occurred (RequestTimeTooSkewed) when calling the "
         "GetObject operation", "clock is wrong", "timedatectl"),
        ("OSError", "[Errno 5] An error occurred (SignatureDoesNotMatch)", "refused", "check"),
        ("ConnectionError", "Cannot connect to host", "Cannot connect", "repeat the command"),
    ],
)  # fmt: skip
def test_what_a_provider_says_is_told_with_what_to_do(
    server: str, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, words: str, hint: str
) -> None:
    place = Location(ADDRESS)
    error = {"PermissionError": PermissionError, "OSError": OSError,
             "ConnectionError": ConnectionError}[kind]  # fmt: skip

    def refuse(*_: object, **__: object) -> bytes:
        raise error(text)

    monkeypatch.setattr(place.fs, "cat_file", refuse)
    with pytest.raises(StorageError, match=words) as caught:
        read_remote_pack(place)
    assert hint in str(caught.value.hint)
    assert "password-of-someone" not in str(caught.value)


# huggingface_hub's own, of httpx.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_pack_goes_to_the_hub_and_comes_back(
    root: Path, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_abc")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        address = "hf://datasets/me/shoes/v1"
        assert len(push_pack(root, pack, Location(address))) == 2 * len(pack.shards)
        assert hub.created[0]["type"] == "dataset"
        assert f"datasets/me/shoes/v1/{pack.shards[0].tar}" in hub.files
        assert push_pack(root, pack, Location(address)) == []
        found = read_remote_pack(Location(address))
        pull_pack(found, Location(address), tmp_path / "here")
        assert verify_pack(tmp_path / "here", pack) == {}
        hub.refuse_all = 403
        with pytest.raises(UShapeError, match="me/shoes") as caught:
            read_remote_pack(Location(address))
        assert "HF_TOKEN" in str(caught.value.hint)
