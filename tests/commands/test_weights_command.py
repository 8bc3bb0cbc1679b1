"""`ushape weights`: pull, convert, inspect, verify, push."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import HubServer, running_hub
from safetensors.torch import load_file, save_file

from ultrashape_cli.data.attribution import Work, write_works
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import PACKAGED
from ultrashape_cli.models.weights import (
    read_metadata,
    read_state_dict,
    write_reference_bundle,
    write_safetensors,
)

# Of httpx, about how huggingface_hub uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return build(model_spec("tiny"), device="cpu")._asdict()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, networks) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    write_reference_bundle(path, networks)
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path):
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
        server.files["infinith/UltraShape/ultrashape_v1.pt"] = bundle.read_bytes()
        yield server


def assert_same(found, networks, dtype: torch.dtype | None = None) -> None:
    for name, module in networks.items():
        for key, value in module.state_dict().items():
            assert torch.equal(found[name][key], value.to(dtype or value.dtype)), key


def test_pull_wants_the_licence_accepted_once(ushape, hub: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = ushape("weights", "pull", "-o", out)
    assert refused.code == 2
    assert "--accept-license" in refused.err
    for place in ("European Union", "United Kingdom", "South Korea"):
        assert place in refused.err
    assert not out.exists()
    assert hub.ranges == []

    first = ushape("weights", "pull", "-o", out, "--accept-license", "--json")
    assert first.code == 0
    body = json.loads(first.out)
    target = out / "ultrashape_v1.pt"
    assert body["outputs"] == {"ultrashape_v1.pt": str(target)}
    assert target.read_bytes() == hub.files["infinith/UltraShape/ultrashape_v1.pt"]
    assert body["files"][0]["state"] == "downloaded"

    again = ushape("weights", "pull", "-o", out)
    assert again.code == 0
    assert again.out == f"{target}\n"
    assert "already there" in again.err
    assert "European Union" in again.err
    assert len(hub.ranges) == 1


def test_pull_keeps_another_file_of_that_name(ushape, hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "ultrashape_v1.pt"
    target.write_text("precious")
    result = ushape("weights", "pull", "-o", tmp_path, "--accept-license")
    assert result.code == 2
    assert target.read_text() == "precious"
    assert ushape("weights", "pull", "-o", tmp_path, "--force").code == 0
    assert target.stat().st_size > 100


def test_pull_refuses_a_wrong_hash(ushape, hub: HubServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = ushape("weights", "pull", "-o", out, "--accept-license", "--sha256", "00" * 32)
    assert result.code == 1
    assert "damaged" in result.err
    assert not list(out.iterdir())


def test_pull_plans_without_writing(ushape, hub: HubServer, tmp_path: Path) -> None:
    result = ushape("weights", "pull", "-o", tmp_path / "out", "--dry-run", "--json")
    assert result.code == 0
    assert json.loads(result.out)["files"][0]["state"] == "planned"
    assert not list(tmp_path.iterdir())


def test_pull_of_a_model_without_weights_asks_for_a_repository(ushape) -> None:
    result = ushape("weights", "pull", "tiny")
    assert result.code == 2
    assert "--repo" in result.err


def test_convert_goes_both_ways(ushape, bundle: Path, tmp_path: Path, networks) -> None:
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pt"
    result = ushape("weights", "convert", bundle, ours)
    assert result.code == 0
    assert result.out == f"{ours}\n"
    metadata = read_metadata(ours)
    assert metadata["model"] == "tiny"
    assert metadata["dtype"] == "float32"
    assert json.loads(metadata["params"])["dit"]["width"] == 96
    assert len(metadata["base_sha256"]) == 64
    assert ushape("weights", "convert", ours, back).code == 0
    content = torch.load(back, weights_only=True)
    assert set(content) == {"vae", "dit", "conditioner"}
    assert_same(content, networks)


def test_convert_casts(ushape, bundle: Path, tmp_path: Path, networks) -> None:
    for name, kind, dtype in (
        ("a.pt", "fp16", torch.float16),
        ("b.safetensors", "bf16", torch.bfloat16),
    ):
        assert ushape("weights", "convert", bundle, tmp_path / name, "--dtype", kind).code == 0
        assert_same(read_state_dict(tmp_path / name), networks, dtype)
    assert read_metadata(tmp_path / "b.safetensors")["dtype"] == "bfloat16"


def test_convert_reads_prefixed_checkpoints_and_shards(ushape, tmp_path: Path, networks) -> None:
    dit = networks["dit"].state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in dit.items()}}, tmp_path / "last.ckpt")
    shards = tmp_path / "shards"
    shards.mkdir()
    keys, weight_map = sorted(dit), {}
    for number, half in enumerate((keys[::2], keys[1::2]), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file({k: dit[k].contiguous() for k in half}, shards / name)
        weight_map |= dict.fromkeys(half, name)
    write_json(shards / "model.safetensors.index.json", {"weight_map": weight_map})
    for source in (tmp_path / "last.ckpt", shards):
        target = tmp_path / f"{source.name}.safetensors"
        assert ushape("weights", "convert", source, target, "--model", "tiny").code == 0
        assert_same(read_state_dict(target), {"dit": networks["dit"]})
    (shards / name).unlink()
    result = ushape("weights", "inspect", shards)
    assert result.code == 1
    assert name in result.err


def test_a_run_converts_to_a_complete_bundle(ushape, bundle: Path, tmp_path: Path, networks):
    run = tmp_path / "runs" / "figures"
    checkpoint = run / "checkpoints" / "step-00000003"
    trained = {k: v + 1 for k, v in networks["dit"].state_dict().items()}
    write_safetensors(checkpoint / "model.safetensors", {"dit": trained})
    weights = checkpoint / "model.safetensors"
    entry = {"bytes": weights.stat().st_size, "sha256": file_hash(weights)}
    write_json(checkpoint / "manifest.json", {"files": {weights.name: entry}})
    files = {name: str(bundle) for name in ("vae", "dit", "conditioner")}
    write_json(run / "base.json", {"model": "tiny", "trained": ["dit"], "components": files})
    for source in (run, checkpoint):
        assert ushape("weights", "convert", source, tmp_path / "out.pt", "--force").code == 0
        found = read_state_dict(tmp_path / "out.pt")
        assert_same(found, {name: networks[name] for name in ("vae", "conditioner")})
        assert all(torch.equal(found["dit"][k], v) for k, v in trained.items())


def test_convert_overwrites_only_when_forced(ushape, bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_text("precious")
    assert ushape("weights", "convert", bundle, target).code == 2
    assert ushape("weights", "convert", bundle, target, "--force", "--dry-run").code == 0
    assert target.read_text() == "precious"
    assert ushape("weights", "convert", bundle, tmp_path / "a.onnx").code == 2


def test_inspect_counts_what_is_inside(ushape, bundle: Path, networks) -> None:
    body = json.loads(ushape("weights", "inspect", bundle, "--json").out)
    assert body["model"] == "tiny"
    by_name = {part["component"]: part for part in body["networks"]}
    for name, module in networks.items():
        assert by_name[name]["parameters"] == sum(p.numel() for p in module.parameters())
        assert by_name[name]["keys"] == len(module.state_dict())
        assert by_name[name]["dtypes"] == "float32"
    text = ushape("weights", "inspect", bundle).out
    assert all(name in text for name in networks)


def test_verify_prints_the_hash_of_whole_weights(ushape, bundle: Path) -> None:
    result = ushape("weights", "verify", bundle, "--json")
    assert result.code == 0
    digest = json.loads(result.out)["sha256"][str(bundle)]
    assert ushape("weights", "verify", bundle, "--sha256", digest).code == 0
    wrong = ushape("weights", "verify", bundle, "--sha256", "00" * 32)
    assert wrong.code == 1
    assert digest in wrong.err


def test_verify_names_file_key_expected_and_found(ushape, bundle: Path, tmp_path: Path) -> None:
    parts = torch.load(bundle, weights_only=True)
    del parts["dit"]["x_embedder.bias"]
    parts["vae"]["pre_kl.weight"] = torch.zeros(3, 5)
    parts["vae"]["extra.weight"] = torch.zeros(2)
    torch.save(parts, tmp_path / "bad.pt")
    result = ushape("weights", "verify", tmp_path / "bad.pt", "--model", "tiny", "--json")
    assert result.code == 1
    body = json.loads(result.out)
    assert body["status"] == "error"
    found = {row["key"]: (row["expected"], row["found"]) for row in body["differences"]}
    assert found == {
        "dit.x_embedder.bias": ("[96]", None),
        "vae.pre_kl.weight": ("[64, 64]", "[3, 5]"),
        "vae.extra.weight": (None, "[2]"),
    }
    assert {row["file"] for row in body["differences"]} == {str(tmp_path / "bad.pt")}
    assert "[3, 5]" in result.err
    refused = ushape("weights", "convert", tmp_path / "bad.pt", tmp_path / "a.safetensors")
    assert refused.code == 1
    assert not (tmp_path / "a.safetensors").exists()


def test_push_uploads_safetensors_and_a_card(
    ushape, hub: HubServer, bundle: Path, tmp_path: Path, networks
) -> None:
    planned = ushape("weights", "push", bundle, "me/shoes", "--dry-run")
    assert planned.code == 0
    assert len(hub.files) == 1
    result = ushape("weights", "push", bundle, "me/shoes", "--json")
    assert result.code == 0
    digest = json.loads(result.out)["sha256"]
    card = hub.files["me/shoes/README.md"].decode()
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    assert digest in card
    (tmp_path / "model.safetensors").write_bytes(hub.files["me/shoes/model.safetensors"])
    assert_same(read_state_dict(tmp_path / "model.safetensors"), networks)
    assert load_file(tmp_path / "model.safetensors")
    pulled = ushape("weights", "pull", "tiny", "--repo", "me/shoes", "-o", tmp_path / "again")
    assert pulled.code == 0
    assert (tmp_path / "again" / "model.safetensors").exists()


def test_weights_go_to_storage_and_come_back(
    ushape, bundle: Path, tmp_path: Path, networks
) -> None:
    place = f"file://{tmp_path}/shelf"
    result = ushape("weights", "push", bundle, place, "--json")
    assert result.code == 0, result.err
    assert sorted(path.name for path in (tmp_path / "shelf").iterdir()) == [
        "README.md", "SHA256SUMS", "model.safetensors"]  # fmt: skip
    line = next(line for line in (tmp_path / "shelf/README.md").read_text().splitlines()
                if "weights pull" in line)  # fmt: skip
    pull = [*line.split()[1:-1], tmp_path / "here"]
    assert ushape(*pull).code == 0
    assert_same(read_state_dict(tmp_path / "here/model.safetensors"), networks)
    assert "already there and whole" in ushape(*pull).err
    damaged = bytearray((tmp_path / "shelf/model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "shelf/model.safetensors").write_bytes(damaged)
    pull[-1] = tmp_path / "again"
    result = ushape(*pull)
    assert result.code == 1
    assert "is damaged there" in result.err
    assert not (tmp_path / "again/model.safetensors").exists()
    (tmp_path / "shelf/SHA256SUMS").unlink()
    result = ushape(*pull)
    assert result.code == 2
    assert "--sha256 HASH" in result.err


def test_what_is_there_is_replaced_only_by_force(
    ushape, bundle: Path, networks, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    push = ("weights", "push", bundle, f"file://{shelf}")
    (shelf / "README.md").write_text("mine")
    assert "README.md` is another file" in ushape(*push).err
    assert [path.name for path in shelf.iterdir()] == ["README.md"]
    (shelf / "README.md").rename(shelf / "SHA256SUMS")
    assert "SHA256SUMS` is another file" in ushape(*push).err
    (shelf / "SHA256SUMS").unlink()
    assert [ushape(*push).code for _ in range(2)] == [0, 0]
    # Killed before its last file, it goes on.
    (shelf / "SHA256SUMS").unlink()
    assert ushape(*push).code == 0
    before = (shelf / "model.safetensors").read_bytes()
    other = tmp_path / "other.safetensors"
    next(iter((changed := read_state_dict(bundle))["dit"].values())).add_(1)
    write_safetensors(other, changed, {"model": "tiny"})
    refused = ushape("weights", "push", other, f"file://{shelf}")
    assert (refused.code, "model.safetensors` is another file" in refused.err) == (2, True)
    assert (shelf / "model.safetensors").read_bytes() == before
    assert ushape("weights", "push", other, f"file://{shelf}", "--force").code == 0
    assert ushape("weights", "push", other, f"file://{tmp_path}").code == 2


def test_the_card_of_the_released_model_states_its_limits() -> None:
    from ultrashape_cli.models.card import model_card

    card = model_card(model_spec("ultrashape-1.0"), "me/x", "model.safetensors", [], "00")
    assert "license: other" in card
    assert "base_model: infinith/UltraShape" in card
    for place in ("European Union", "United Kingdom", "South Korea"):
        assert place in card


def test_help_of_every_command_names_an_example(ushape) -> None:
    for verb in ("pull", "convert", "inspect", "verify", "push"):
        result = ushape("weights", verb, "--help")
        assert result.code == 0
        assert f"ushape weights {verb}" in result.out


@pytest.mark.parametrize("arguments", [[], ["pull"], ["convert"], ["push"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from ultrashape_cli.cli import run\n"
        f"code = run(['weights', *{arguments!r}, '--help'])\n"
        "loaded = {'torch', 'numpy', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'{code} {loaded}' if code or loaded else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_conversion_never_replaces_what_it_reads(ushape, bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(bundle.read_bytes())
    (tmp_path / "link.pt").symlink_to(own)
    (tmp_path / "hard.pt").hardlink_to(own)
    shards = tmp_path / "shards"
    shards.mkdir()
    shutil.copy(PACKAGED / "tiny.safetensors", shards)
    for source, target in (
        *((own, name) for name in ("own.pt", "link.pt", "hard.pt")),
        (shards, "shards/new.safetensors"),
    ):
        result = ushape("weights", "convert", source, tmp_path / target, "--force")
        assert result.code == 2, target
        assert "--force" not in result.err
    assert own.read_bytes() == bundle.read_bytes()
    assert len(list(shards.iterdir())) == 1


def test_weights_go_with_their_attribution_and_not_where_a_licence_forbids(
    ushape, hub: HubServer, bundle: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "mine.pt"
    shutil.copyfile(bundle, weights)
    attribution = tmp_path / "mine.ATTRIBUTION.md"
    free = Work("Lamp", "maker", "CC-BY-4.0", "objaverse", "https://example.org/1")
    write_works(attribution, [free])
    planned = ushape("weights", "push", weights, "me/shoes", "--public", "--dry-run")
    assert "model.safetensors, README.md and ATTRIBUTION.md to me/shoes" in planned.err
    write_works(attribution, [free, free._replace(licence="CC-BY-NC-4.0")])
    refused = ushape("weights", "push", weights, "me/shoes", "--public", "--json")
    assert refused.code == 2
    error = json.loads(refused.out)["error"]
    assert "meshes under CC-BY-NC-4.0" in error["message"]
    assert "--licence-override" in error["hint"]
    converted = tmp_path / "other.safetensors"
    assert ushape("weights", "convert", weights, converted).code == 0
    assert (tmp_path / "other.ATTRIBUTION.md").read_bytes() == attribution.read_bytes()
    assert ushape("weights", "push", converted, "me/shoes", "--public").code == 2
    assert "may be public" in ushape("weights", "push", weights, "s3://bucket/x").err
    # A new repository is private, one that is there may be public.
    assert ushape("weights", "push", weights, "me/shoes").code == 0
    assert hub.files["me/shoes/ATTRIBUTION.md"] == attribution.read_bytes()
    place = f"file://{tmp_path}/shelf"
    assert ushape("weights", "push", weights, place).code == 0
    for number, source in enumerate(("me/shoes", place)):
        pulled = tmp_path / f"pulled-{number}"
        assert ushape("weights", "pull", "tiny", "--repo", source, "-o", pulled).code == 0
        assert (pulled / "model.ATTRIBUTION.md").read_bytes() == attribution.read_bytes()
    attribution.unlink()
    assert ushape("weights", "push", weights, place).code == 0
    assert ushape("weights", "pull", "tiny", "--repo", place, "-o", tmp_path / "free").code == 0
    assert len(list((tmp_path / "free").iterdir())) == 1
    write_works(attribution, [free, free._replace(licence="CC-BY-NC-4.0")])
    assert ushape("weights", "push", weights, "me/shoes", "--dry-run").code == 0
    hub.public.add("me/shoes")
    assert ushape("weights", "push", weights, "me/shoes", "--dry-run").code == 2
    assert ushape("weights", "push", weights, "me/shoes", "--licence-override").code == 0
