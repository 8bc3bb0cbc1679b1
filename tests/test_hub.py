"""Downloads and uploads, against a stand-in server."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, running_hub

from ultrashape_cli.errors import CheckpointError, UsageError
from ultrashape_cli.hub import (
    LICENCES,
    HubError,
    accept,
    download,
    find_remote,
    is_accepted,
    sha256_file,
    upload,
)

# Of httpx, about how huggingface_hub uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/weights"
DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        # A cut loses the block in flight, 10 MiB otherwise.
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
        # huggingface_hub waits a second before each of its own retries.
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        server.files[f"{REPO}/model.pt"] = DATA
        yield server


def test_a_file_arrives_whole_with_progress(hub: HubServer, tmp_path: Path) -> None:
    remote = find_remote(REPO, "model.pt")
    assert (remote.size, remote.sha256, remote.commit) == (len(DATA), DIGEST, COMMIT)
    calls: list[tuple[int, int]] = []
    target = tmp_path / "new" / "model.pt"
    digest = download(remote, target, progress=lambda *call: calls.append(call))
    assert digest == DIGEST == sha256_file(target)
    assert calls[-1] == (len(DATA), len(DATA))
    assert [p.name for p in target.parent.iterdir()] == ["model.pt"]


def test_a_cut_connection_is_resumed_at_once(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after = 300_000
    assert download(find_remote(REPO, "model.pt"), tmp_path / "model.pt") == DIGEST
    assert hub.ranges[0] is None
    assert hub.ranges[1] == "bytes=300000-"


def test_the_next_run_goes_on_where_the_last_one_stopped(hub: HubServer, tmp_path: Path) -> None:
    remote = find_remote(REPO, "model.pt")
    hub.cut_after = 300_000
    hub.leave_after_cut = True
    with pytest.raises(HubError, match=r"after 300000 of 1048576 bytes") as caught:
        download(remote, tmp_path / "model.pt")
    assert "goes on" in (caught.value.hint or "")
    assert not (tmp_path / "model.pt").exists()
    hub.refuse, hub.cut_after = 0, None
    hub.ranges.clear()
    assert download(find_remote(REPO, "model.pt"), tmp_path / "model.pt") == DIGEST
    assert hub.ranges == ["bytes=300000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_changed_remote_file_is_not_glued_to_the_old_part(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after, old = 300_000, find_remote(REPO, "model.pt")
    hub.refuse = True
    with pytest.raises(HubError):
        download(old, tmp_path / "model.pt")
    hub.refuse, hub.cut_after = 0, None
    hub.files[f"{REPO}/model.pt"] = DATA[::-1]
    download(find_remote(REPO, "model.pt"), tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("told_by", ["server", "user"])
def test_a_wrong_hash_is_refused_and_the_part_removed(
    hub: HubServer, tmp_path: Path, told_by: str
) -> None:
    wrong = "ab" * 32
    if told_by == "server":
        hub.etags[f"{REPO}/model.pt"] = wrong
    expected = wrong if told_by == "user" else None
    with pytest.raises(CheckpointError, match=rf"expected .*{wrong}.* found .*{DIGEST}"):
        download(find_remote(REPO, "model.pt"), tmp_path / "model.pt", expected_sha256=expected)
    assert not list(tmp_path.iterdir())


def test_absent_files_and_servers_are_named(hub: HubServer, monkeypatch) -> None:
    with pytest.raises(HubError, match=r"someone/weights/other\.pt: not found"):
        find_remote(REPO, "other.pt")
    with pytest.raises(UsageError, match="no repository name"):
        find_remote("a/b/c", "other.pt")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="connection") as caught:
        find_remote(REPO, "model.pt")
    assert "HF_ENDPOINT" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("when", ["asked", "downloaded"])
def test_a_refusal_names_licence_page_and_login(
    hub: HubServer, tmp_path: Path, status: int, when: str
) -> None:
    remote = find_remote(REPO, "model.pt")
    hub.refuse, hub.refuse_all = status, status if when == "asked" else 0
    asking = partial(find_remote, REPO, "model.pt")
    loading = partial(download, remote, tmp_path / "model.pt")
    with pytest.raises(HubError, match="licence") as caught:
        (asking if when == "asked" else loading)()
    assert f"{hub.url}/{REPO}" in caught.value.message
    assert str(status) in caught.value.message
    hint = caught.value.hint or ""
    assert f"{hub.url}/{REPO}" in hint
    assert "hf auth login" in hint
    assert "HF_TOKEN" in hint
    assert "again" not in hint


def test_an_expired_address_of_the_storage_is_asked_for_anew(
    hub: HubServer, tmp_path: Path
) -> None:
    remote = find_remote(REPO, "model.pt")
    hub.refuse = 403
    elsewhere = replace(remote, url=remote.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(HubError) as caught:
        download(elsewhere, tmp_path / "model.pt")
    assert "run the same command again" in (caught.value.hint or "")


def test_an_upload_creates_the_repository_and_can_be_downloaded(
    hub: HubServer, tmp_path: Path
) -> None:
    (tmp_path / "a.safetensors").write_bytes(DATA)
    files: dict[str, Path | bytes] = {
        "README.md": b"# card",
        "model.safetensors": tmp_path / "a.safetensors",
    }
    address = upload("me/shoes", files, message="first")
    assert address.endswith(f"/me/shoes/commit/{COMMIT}")
    assert hub.created[0]["name"] == "shoes"
    assert hub.files["me/shoes/README.md"] == b"# card"
    remote = find_remote("me/shoes", "model.safetensors")
    assert download(remote, tmp_path / "b.safetensors") == DIGEST


def test_an_acceptance_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (licence,) = LICENCES.values()
    assert not is_accepted(licence)
    assert accept(licence) == tmp_path / "ushape" / "licences.json"
    assert is_accepted(licence)
    for place in ("European Union", "United Kingdom", "South Korea"):
        assert place in licence.limits


def test_importing_the_module_loads_no_client() -> None:
    import subprocess

    code = "import sys, ultrashape_cli.hub; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
