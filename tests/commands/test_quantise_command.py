"""`ushape weights quantise`, and what takes its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import PACKAGED
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.synthetic.figurines import make_figurine

SCHEMES = ("int8", "int6", "int4")


@pytest.fixture
def codes(ushape, inputs: Path, tmp_path: Path) -> Path:
    """The weights of `inputs` as int6."""
    target = tmp_path / "codes.safetensors"
    result = ushape("weights", "quantise", inputs / "weights.safetensors", target,
                    "--scheme", "int6")  # fmt: skip
    assert result.code == 0
    assert result.out == f"{target}\n"
    return target


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two held-out figurines with a view each."""
    data = Dataset(tmp_path / "data")
    (data.root / "records").mkdir(parents=True)
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[5:35, 10:30] = (200, 150, 100, 255)
    from PIL import Image

    for seed, name in enumerate(("a", "b")):
        made = make_figurine(seed, resolution=24)
        mesh = Mesh(fit_frame(made).to_normalised(made.vertices), made.faces)
        save_mesh(mesh, data.mesh(name))
        data.views(name).mkdir(parents=True)
        Image.fromarray(pixels).save(data.views(name) / "view_000.png")
    write_json(data.list_path("val"), ["a", "b"])
    return data.root


@pytest.mark.slow
def test_refine_takes_codes_in_every_mode_but_int8(refine, codes: Path, tmp_path: Path) -> None:
    found = []
    assert refine("-o", tmp_path / "plain.ply").code == 0
    for mode in ("resident", "streamed"):
        out = tmp_path / f"{mode}.ply"
        result = refine("--checkpoint", codes, "-o", out, "--set", f"refine.memory={mode}")
        assert result.code == 0, result.err
        assert "(int6 codes in the DiT)" in result.err
        found.append(out.read_bytes())
    assert found[0] == found[1]
    plain, ours = (load_mesh(tmp_path / f"{name}.ply") for name in ("plain", "streamed"))
    assert np.abs(plain.bounds - ours.bounds).max() < 0.02
    result = refine("--checkpoint", codes, "-o", tmp_path / "x.ply", "--set", "refine.memory=int8")
    assert result.code == 2
    assert "quantised already (int6)" in result.err
    assert "hint: --set refine.memory=auto" in result.err


@pytest.mark.slow
def test_the_report_measures_codes_against_bf16(
    ushape, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of large models, block by block: there are seven, and seventy layers.
    monkeypatch.setattr("ultrashape_cli.evaluation.quantisation.PER_LAYER_BELOW", 0)
    target = tmp_path / "int8.safetensors"
    fast = [
        part
        for setting in ("steps=3", "grid_resolution=32", "tokens=48", "surface_points=2000")
        for part in ("--set", f"refine.{setting}")
    ]
    command = ("weights", "quantise", "tiny", target, "--report", dataset, "--limit", 1, *fast,
               "--set", "evaluate.points=500")  # fmt: skip
    planned = ushape(*command, "--dry-run")
    assert planned.code == 0
    assert not target.exists()
    result = ushape(*command, "--json")
    assert result.code == 0, result.err
    body = json.loads(result.out)
    report = json.loads((tmp_path / "int8.report.json").read_text())
    assert body["outputs"]["report"] == str(tmp_path / "int8.report.json")
    assert body["report"] == report
    assert report["assets"] == ["a"]
    assert report["settings"]["dtype"] == "fp32"
    assert 0 < report["latent"]["int8"]["mean"] < 0.2
    assert report["latent"]["ratio"] == pytest.approx(
        report["latent"]["int8"]["mean"] / report["latent"]["bf16"]["mean"]
    )
    velocity = report["velocity"]
    assert velocity["times"] == [0.1, 0.35, 0.6, 0.85]
    assert all(0 < error < 0.2 for error in (*velocity["int8"], *velocity["bf16"]))
    layers = {row["name"]: row for row in velocity["layers"]}
    assert layers.keys() == {f"blocks.{index}" for index in range(7)}
    assert all(len(row["errors"]) == 4 for row in layers.values())
    # One block changes less than all of them.
    assert max(row["mean"] for row in layers.values()) < max(velocity["int8"])
    assert {"chamfer_l1", "f_score@0.01", "normal_consistency"} <= report["scores"]["int8"].keys()
    assert report["dit_gib"]["int8"] < 0.5 * report["dit_gib"]["as it was"]
    assert "times that of rounding the same weights to bf16" in result.err


def test_a_report_wants_images_before_anything_is_written(ushape, dataset, tmp_path) -> None:
    (Dataset(dataset).views("b") / "view_000.png").unlink()
    target = tmp_path / "a.safetensors"
    result = ushape("weights", "quantise", "tiny", target, "--report", dataset)
    assert result.code == 1
    assert "asset `b` of" in result.err
    assert f"hint: ushape render {dataset}" in result.err
    assert not target.exists()


def test_nothing_is_overwritten_unasked(ushape, inputs: Path, codes: Path, tmp_path: Path) -> None:
    weights, before = inputs / "weights.safetensors", codes.read_bytes()
    command = ("weights", "quantise", weights, codes, "--scheme", "int4")
    assert ushape(*command).code == 2
    assert ushape(*command, "--force", "--dry-run").code == 0
    assert codes.read_bytes() == before
    assert ushape(*command, "--force").code == 0
    assert codes.read_bytes() != before
    held = file_hash(weights)
    refused = ushape("weights", "quantise", weights, weights, "--force")
    assert refused.code == 2
    assert "input" in refused.err
    assert file_hash(weights) == held
    assert ushape("weights", "quantise", weights, tmp_path / "a.pt").code == 2
    assert ushape("weights", "quantise", tmp_path / "none", tmp_path / "a.safetensors").code == 1
    assert not list(tmp_path.glob(".*.tmp*"))


def test_codes_are_not_trained_converted_or_quantised_again(ushape, codes, ball_folder, tmp_path):
    train = ("train", "--init", codes, "--model", "tiny", "--data", ball_folder, "--dry-run")
    for command in (
        ("weights", "quantise", codes, tmp_path / "x.safetensors"),
        ("weights", "convert", codes, tmp_path / "x.pt"),
        ("weights", "convert", codes, tmp_path / "x.safetensors"),
        train,
        (*train, "--set", "train.strategy=lora"),
    ):
        result = ushape(*command)
        assert result.code == 1, result.err
        assert f"`{codes}` is quantised (int6)" in result.err
        assert "then quantise the result" in result.err
    assert not list(tmp_path.glob("x.*"))


def test_codes_are_inspected_and_verified(ushape, inputs: Path, codes: Path) -> None:
    weights = inputs / "weights.safetensors"
    body = json.loads(ushape("weights", "inspect", codes, "--json").out)
    parts = {part["component"]: part for part in body["networks"]}
    plain = build(model_spec("tiny"))
    assert plain.dit is not None
    assert parts["dit"]["parameters"] == sum(p.numel() for p in plain.dit.parameters())
    assert parts["dit"]["dtypes"].startswith("int6 codes")
    assert json.loads(body["metadata"]["quantisation"])["group"] == 32
    result = ushape("weights", "verify", codes, "--made-from", weights)
    assert result.code == 0
    assert "its DiT is int6 codes" in result.err
    other = ushape("weights", "verify", codes, "--made-from", PACKAGED / "tiny.safetensors")
    assert other.code == 1
    assert "was not made from" in other.err
    assert ushape("weights", "verify", weights, "--made-from", weights).code == 2


def test_a_run_is_quantised_with_the_networks_it_started_from(ushape, inputs, tmp_path) -> None:
    networks = build(model_spec("tiny"), device="cpu")
    assert networks.dit is not None
    run = tmp_path / "runs" / "figures"
    checkpoint = run / "checkpoints" / "step-00000003"
    weights = checkpoint / "model.safetensors"
    write_safetensors(weights, {"dit": networks.dit})
    entry = {"bytes": weights.stat().st_size, "sha256": file_hash(weights)}
    write_json(checkpoint / "manifest.json", {"files": {weights.name: entry}})
    base = tmp_path / "base.safetensors"
    shutil.copy(inputs / "weights.safetensors", base)
    files = {name: str(base) for name in ("vae", "dit", "conditioner")}
    write_json(run / "base.json", {"model": "tiny", "trained": ["dit"], "components": files})
    target = tmp_path / "run.safetensors"
    assert ushape("weights", "quantise", run, target).code == 0
    found, held = load_file(target), load_file(base)
    gate = "blocks.5.moe.gate.weight"
    assert torch.equal(found[f"dit.{gate}"], networks.dit.state_dict()[gate])
    assert all(torch.equal(found[k], v) for k, v in held.items() if k.startswith("vae."))
    assert ushape("weights", "verify", target, "--made-from", run).code == 0
    inside = ushape("weights", "quantise", run, checkpoint / "x.safetensors")
    assert inside.code == 2


def test_weights_without_a_dit_are_refused(ushape, tmp_path: Path) -> None:
    networks = build(model_spec("tiny"), device="cpu", components=("vae",))
    assert networks.vae is not None
    write_safetensors(tmp_path / "vae.safetensors", {"vae": networks.vae}, {"model": "tiny"})
    result = ushape("weights", "quantise", tmp_path / "vae.safetensors", tmp_path / "a.safetensors")
    assert result.code == 1
    assert "holds no `dit` weights" in result.err
