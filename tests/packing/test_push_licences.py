"""What a pack knows of its assets' licences, and where it may go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, running_hub
from packs import fill

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.packing.layout import read_pack
from ultrashape_cli.packing.opened import open_dataset

# Of httpx, about how huggingface_hub uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Eight assets: two by-nc, one no derivatives, one unknown, the rest of the studio."""
    dataset = fill(Dataset(tmp_path / "data"), range(8))
    for seed, licence in ((0, "CC-BY-NC-4.0"), (1, "CC-BY-NC-4.0"), (2, "CC-BY-ND-4.0"), (3, "")):
        record = dataset.read_record(f"asset-{seed:03d}")
        assert record is not None
        record.source["origin"] = {"source": "objaverse", "uid": str(seed), "licence": licence}
        dataset.write_record(record)
    return dataset


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        yield server


def test_a_pack_counts_licences_and_one_without_any_is_as_before(
    ushape, dataset: Dataset, tmp_path: Path
) -> None:
    assert ushape("data", "pack", dataset.root).code == 0
    pack = read_pack(tmp_path / "data.pack")
    assert pack.licences == {"CC-BY-NC-4.0": 2, "CC-BY-ND-4.0": 1, "unknown": 1}
    assert open_dataset(str(tmp_path / "data.pack"), str(tmp_path / "cache")).read_split("train")
    fill(Dataset(tmp_path / "own"), range(3))
    assert ushape("data", "pack", tmp_path / "own").code == 0
    value = json.loads((tmp_path / "own.pack/pack.json").read_text())
    assert list(value) == ["format", "digest", "version", "counts", "shards"]
    assert read_pack(tmp_path / "own.pack").licences == {}


def test_the_attribution_goes_with_the_pack(ushape, dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.list_path("train").with_name("ATTRIBUTION.md")
    path.write_text("# Attribution\n")
    assert ushape("data", "pack", dataset.root).code == 0
    opened = open_dataset(str(tmp_path / "data.pack"), str(tmp_path / "cache"))
    assert (opened.root / "data_list/ATTRIBUTION.md").read_text() == path.read_text()


def test_a_public_repository_is_refused_what_may_not_be_handed_on(
    ushape, dataset: Dataset, hub: HubServer, tmp_path: Path
) -> None:
    ushape("data", "pack", dataset.root)
    pack, there = tmp_path / "data.pack", "hf://datasets/me/set"
    hub.public.add("datasets/me/set")
    for more in ((), ("--dry-run",)):
        refused = ushape("data", "push", pack, there, *more, "--json")
        assert refused.code == 2
        error = json.loads(refused.out)["error"]
        assert "1 of CC-BY-ND-4.0, 1 of unknown" in error["message"]
        assert "CC-BY-NC" not in error["message"]
        assert "--licence-override" in error["hint"]
    assert not hub.files
    # As the Hub makes a repository.
    hub.files["datasets/me/set/.gitattributes"] = b"*.tar filter=lfs"
    assert ushape("data", "push", pack, there, "--licence-override").code == 0
    hub.public.clear()
    assert ushape("data", "push", pack, there).code == 0


def test_a_bucket_may_be_public_and_a_folder_is_not(
    ushape, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ushape("data", "pack", dataset.root)
    refused = ushape("data", "push", tmp_path / "data.pack", "s3://bucket/x")
    assert refused.code == 2
    assert "may be public" in refused.err
    assert ushape("data", "push", tmp_path / "data.pack", tmp_path / "shelf").code == 0
