"""`ushape weights export`: which weights of a run, in which form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.attribution import Work, write_works
from ultrashape_cli.errors import UsageError
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.weights import read_metadata, read_state_dict
from ultrashape_cli.runs import complete_checkpoints
from ultrashape_cli.training.worker import train_run


def _trained(make_run, **settings):
    run, _ = make_run(steps=2, save_every_steps=1, learning_rate=1e-3, **settings)
    train_run(run, resolve(file=run.config, environ={}).config)
    return run


def _same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ["latest", "1", "step-00000001"])
def test_a_checkpoint_is_exported_with_the_networks_it_started_from(
    make_run, ushape, tmp_path: Path, name: str
) -> None:
    run = _trained(make_run, model="tiny")
    target = tmp_path / "out.safetensors"
    result = ushape("weights", "export", run.root, "-o", target, "--checkpoint", name)
    assert result.code == 0, result.err
    chosen = complete_checkpoints(run.checkpoints)[-1 if name == "latest" else 0]
    found, saved = read_state_dict(target), read_state_dict(chosen / "model.safetensors")
    assert found.keys() == {"vae", "dit", "conditioner"}
    assert all(_same(found[part], saved[part]) for part in ("dit", "conditioner"))
    assert read_metadata(target)["model"] == "tiny"
    # Neither the checkpoint nor another one of the run is replaced, whatever is forced.
    for checkpoint in complete_checkpoints(run.checkpoints):
        own = checkpoint / "model.safetensors"
        refused = ushape("weights", "export", run.root, "-o", own, "--checkpoint", name, "--force")
        assert refused.code == 2
        assert "lies in the input" in refused.err or "is the input" in refused.err
    assert _same(read_state_dict(chosen / "model.safetensors")["dit"], saved["dit"])


def test_the_average_and_the_reference_bundle(make_run, ushape, tmp_path: Path) -> None:
    run = _trained(make_run, ema_decay=0.5)
    target = tmp_path / "out.pt"
    command = ("weights", "export", run.root, "-o", target, "--format", "reference")
    assert ushape(*command, "--ema").code == 0
    newest = complete_checkpoints(run.checkpoints)[-1]
    average = read_state_dict(newest / "ema.safetensors")
    assert _same(read_state_dict(target)["dit"], average["dit"])
    assert ushape(*command).code == 2
    assert ushape(*command, "--force").code == 0
    assert not _same(read_state_dict(target)["dit"], average["dit"])


def test_adapters_alone_or_merged(make_run, ushape, tmp_path: Path) -> None:
    run = _trained(make_run, strategy="lora", ema_decay=0.5)
    newest = complete_checkpoints(run.checkpoints)[-1]
    folder = tmp_path / "adapters"
    command = ("weights", "export", run.root)
    assert ushape(*command, "-o", folder, "--no-merge-lora").code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    own = load_file(newest / "adapter_model.safetensors")
    assert _same(load_file(folder / "adapter_model.safetensors"), own)
    plain, averaged = tmp_path / "plain.safetensors", tmp_path / "averaged.safetensors"
    assert ushape(*command, "-o", plain).code == 0
    assert ushape(*command, "-o", averaged, "--ema").code == 0
    base = read_state_dict(run.root / "base.safetensors")["dit"]
    merged, mean = (read_state_dict(path)["dit"] for path in (plain, averaged))
    assert base.keys() == merged.keys() == mean.keys()
    key = "blocks.0.mlp.fc1.weight"
    assert len({float(part[key].sum()) for part in (base, merged, mean)}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ema",), "has no averaged weights"),
        (("--checkpoint", "7"), "has no checkpoint `7`"),
        (("--checkpoint", "best"), "has no checkpoint `best`"),
        (("--no-merge-lora",), "holds no adapters"),
    ],
)
def test_what_is_not_there_is_named(make_run, ushape, tmp_path, arguments, message) -> None:
    run = _trained(make_run)
    out = () if "--no-merge-lora" in arguments else ("-o", tmp_path / "a.safetensors")
    result = ushape("weights", "export", run.root, *out, *arguments)
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "a.safetensors").exists()


def test_the_name_must_fit_the_format(make_run, ushape, tmp_path: Path) -> None:
    run = _trained(make_run)
    result = ushape("weights", "export", run.root, "-o", tmp_path / "a.bin")
    assert result.code == 2
    assert "a.safetensors" in result.err


def test_the_attribution_lies_beside_what_is_exported(make_run, ushape, tmp_path: Path) -> None:
    run = _trained(make_run)
    work = Work("Lamp", "maker", "CC-BY-4.0", "objaverse", "https://example.org/1")
    write_works(run.root / "ATTRIBUTION.md", [work])
    target = tmp_path / "mine.safetensors"
    result = ushape("weights", "export", run.root, "-o", target, "--json")
    assert result.code == 0, result.err
    beside = tmp_path / "mine.ATTRIBUTION.md"
    assert json.loads(result.out)["outputs"]["attribution"] == str(beside)
    assert beside.read_bytes() == (run.root / "ATTRIBUTION.md").read_bytes()


def test_graphs_are_those_of_the_merged_or_averaged_weights_of_a_run(
    make_run, ushape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[WeightSource] = []

    def export(source: WeightSource, folder: Path, tell: object) -> dict:
        asked.append(source)
        raise UsageError("far enough")

    monkeypatch.setattr("ultrashape_cli.evaluation.export.export_onnx", export)
    run = _trained(make_run, strategy="lora", ema_decay=0.5)
    first, newest = complete_checkpoints(run.checkpoints)
    command = ("weights", "export", run.root, "--format", "onnx", "-o", tmp_path / "graphs")
    assert "far enough" in ushape(*command, "--ema").err
    assert "far enough" in ushape(*command, "--checkpoint", "1").err
    averaged, earlier = asked
    assert (averaged.adapters["dit"], averaged.averaged) == (newest, True)
    assert (earlier.adapters["dit"], earlier.averaged) == (first, False)
    loaded, base = load_networks(earlier).dit, read_state_dict(earlier.files["dit"])["dit"]
    assert loaded is not None
    assert not _same(loaded.state_dict(), base)
    refused = ushape(*command, "--no-merge-lora")
    assert refused.code == 2
    assert "adapters are merged" in refused.err
    # Nor may a run be written into.
    assert ushape(*command[:-1], run.root / "graphs").code == 2
