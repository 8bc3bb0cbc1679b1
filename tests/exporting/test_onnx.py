"""`ushape weights export --format onnx`, and refining with what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from exporting.conftest import SIZES
from exporting.mini import MINI, write_mini

from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.evaluation.export import export_onnx
from ultrashape_cli.evaluation.parity import LIMIT, Cases, errors_of, require_parity
from ultrashape_cli.exporting.onnx_files import open_part
from ultrashape_cli.exporting.parts import NETWORK_OF, PARTS, make_part
from ultrashape_cli.models.sources import load_networks, resolve_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_refine.py"


def test_the_manifest_has_all_parts_with_their_errors_at_three_sizes(exported: Path):
    manifest = json.loads((exported / "export.json").read_text())
    assert tuple(manifest["parts"]) == PARTS
    for name, part in manifest["parts"].items():
        assert len(part["parity"]) == 3 + (name == "dit"), "the DiT also without an image"
        # Equal in every bit would mean that a network was compared with itself.
        assert max(each["error"] for each in part["parity"]) <= LIMIT
    sizes = [each["sizes"]["latents"] for each in manifest["parts"]["dit"]["parity"]]
    assert sizes == [*SIZES, SIZES[-1]]
    assert manifest["dense_experts"][0]["extra_flops"] > 0
    assert set(manifest["files"]) == {p.name for p in exported.iterdir()} - {"export.json"}


def test_the_graphs_hold_at_sizes_they_were_not_exported_at(exported: Path, inputs: Path):
    cases = Cases(MINI, (33, 51))
    networks = load_networks(resolve_weights(inputs / "weights.safetensors"))
    for name in PARTS:
        part = make_part(name, networks, MINI)
        assert (
            max(errors_of(open_part(exported / f"{name}.onnx"), *cases.follow(name, part))) < LIMIT
        )


def test_large_weights_lie_beside_the_graph(exported: Path):
    assert (exported / "dit.onnx.data").stat().st_size > 200_000
    assert (exported / "dit.onnx").stat().st_size < 200_000
    assert str(Path(__file__).parents[2]).encode() not in (exported / "dit.onnx").read_bytes()
    assert not (exported / "query.onnx.data").exists()


def test_the_result_is_that_of_torch_and_the_record_names_the_backend(
    refine, exported: Path, inputs: Path, tmp_path: Path
):
    made, weights = {}, inputs / "weights.safetensors"
    for name, checkpoint in (("torch", weights), ("onnx", exported)):
        assert refine(checkpoint, "-o", tmp_path / f"{name}.ply").code == 0
        made[name] = trimesh.load(tmp_path / f"{name}.ply")
        record = json.loads((tmp_path / f"{name}.ply.json").read_text())
        assert record["result"]["backend"]["name"] == name
    assert "onnxruntime" in record["result"]["backend"]
    assert len(made["torch"].vertices) > 100
    assert np.array_equal(made["torch"].faces, made["onnx"].faces)
    assert np.allclose(made["torch"].vertices, made["onnx"].vertices, atol=1e-4)


def test_what_cannot_be_trusted_is_refused(refine, copied: Path, change, tmp_path: Path):
    def refused(*words: str) -> None:
        done = refine(copied, "-o", tmp_path / "out.ply")
        assert done.code == 1
        assert all(word in done.err for word in words), done.err
        assert not (tmp_path / "out.ply").exists()

    decoder = copied / "decoder.onnx"
    whole = decoder.read_bytes()
    decoder.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("decoder.onnx", "edited, or of other weights")
    decoder.write_bytes(whole[:-9])
    refused("decoder.onnx", "cut off")
    decoder.write_bytes(whole)
    (copied / "dit.onnx.data").rename(tmp_path / "away")
    refused("incomplete", "dit.onnx.data")
    (tmp_path / "away").rename(copied / "dit.onnx.data")
    change(parts=[])
    refused("export.json", "broken")
    change(format_version=99, ushape="9.9")
    refused("ushape 9.9", "version 99", "--force")


def test_backends_and_checkpoints_that_do_not_go_together(
    refine, exported: Path, inputs: Path, tmp_path: Path, ushape
):
    out, weights = ("-o", tmp_path / "out.ply"), inputs / "weights.safetensors"
    for checkpoint, options, word, hint in (
        (exported, ("--backend", "torch"), "needs weights", "--backend onnx"),
        (exported, ("--backend", "aoti"), "needs weights", "--backend onnx"),
        (weights, ("--backend", "onnx"), "needs an exported folder", "--format onnx -o"),
        (exported, ("--set", "refine.dtype=bf16"), "fp32", "refine.dtype=fp32"),
        (exported, ("--set", "refine.memory=int8"), "int8", "refine.memory=auto"),
        (weights, ("--backend", "aoti", "--set", "refine.compile=true"), "compiles", "false"),
    ):
        done = refine(checkpoint, *options, *out)
        assert done.code == 2, done.err
        assert word in done.err
        assert hint in done.err
    done = ushape("weights", "quantise", weights, tmp_path / "codes.safetensors")
    assert done.code == 0
    done = refine(tmp_path / "codes.safetensors", "--backend", "aoti", *out)
    assert done.code == 2
    assert "quantised" in done.err
    done = ushape("weights", "export", tmp_path / "codes.safetensors", "--format", "onnx")
    assert done.code == 1
    assert "quantised" in done.err


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_command_to_get_it(
    refine, exported: Path, inputs: Path, tmp_path: Path, monkeypatch, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    source = resolve_weights(inputs / "weights.safetensors")
    with pytest.raises(DependencyError, match=package) as caught:
        export_onnx(source, tmp_path / "new")
    assert caught.value.hint == "pip install 'ultrashape-cli[onnx]'"
    assert list(tmp_path.iterdir()) == []
    if package == "onnxruntime":
        done = refine(exported, "-o", tmp_path / "out.ply")
        assert done.code == 1
        assert "ultrashape-cli[onnx]" in done.err


def test_an_export_replaces_only_an_export_and_only_when_forced(
    ushape, copied: Path, inputs: Path, tmp_path: Path
):
    def export(target: Path, *more: str):
        return ushape("weights", "export", inputs / "weights.safetensors", "--format", "onnx",
                      "-o", target, *more)  # fmt: skip

    assert export(copied).code == 2
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    done = export(other, "--force")
    assert done.code == 2
    assert "did not make it" in done.err
    assert (other / "notes.txt").read_text() == "mine"
    done = export(inputs)
    assert done.code == 2  # the folder of the weights themselves
    done = export(tmp_path / "new", "--dtype", "fp16")
    assert done.code == 2
    assert "fp32" in done.err
    done = ushape("weights", "export", copied, "--format", "onnx", "-o", tmp_path / "twice")
    assert done.code == 1
    assert "an export already" in done.err


def test_an_export_that_differs_from_the_networks_is_not_written(
    monkeypatch, inputs: Path, tmp_path: Path
):
    source = resolve_weights(inputs / "weights.safetensors")
    module = "ultrashape_cli.evaluation.export"

    def write(name: str, part: object, spec: object, folder: Path, **_: object) -> list[Path]:
        (folder / f"{name}.onnx").write_bytes(b"graph")
        return [folder / f"{name}.onnx"]

    monkeypatch.setattr(f"{module}.write_part", write)
    monkeypatch.setattr(f"{module}.open_part", lambda path: None)
    monkeypatch.setattr(f"{module}.errors_of", lambda graph, given, made: [1e-3] * len(given))
    with pytest.raises(CheckpointError, match=r"`conditioner` is off by 1\.0e-03"):
        export_onnx(source, tmp_path / "bad", sizes=(20, 30, 40))
    assert list(tmp_path.iterdir()) == []
    require_parity({"query": [LIMIT]})
    with pytest.raises(CheckpointError, match="query"):
        require_parity({"dit": [0.0], "query": [0.0, float("nan")]})


def test_distilled_weights_stay_distilled(copied: Path, change):
    change(distilled={"evaluations": 6, "guidance": 2.0, "teacher": "t"})
    found = resolve_weights(copied)
    assert found.distilled is not None
    assert found.distilled.evaluations == 6
    assert found.quantised is None
    with pytest.raises(CheckpointError, match="export for onnxruntime"):
        load_networks(found)


def test_the_example_refines_with_numpy_alone(refine, exported: Path, inputs: Path, tmp_path: Path):
    out = tmp_path / "refined.ply"
    arguments = (exported, inputs / "mesh.ply", inputs / "image.png", out)
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['x', *map(str, arguments)]!r}\n"
        f"runpy.run_path({str(EXAMPLE)!r})\n"
        "print([name for name in ('torch', 'ultrashape_cli') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
    assert refine(exported, "-o", tmp_path / "ours.ply").code == 0
    ours, made = trimesh.load(tmp_path / "ours.ply"), trimesh.load(out)
    # Other samples of the surface dent the ball of these weights elsewhere.
    assert len(made.faces) > 1000
    assert np.allclose(made.bounds, ours.bounds, atol=0.1 * ours.scale)


@pytest.mark.slow
def test_the_packaged_model_exported_and_refined_by_both(ushape, inputs, tmp_path: Path):
    """The whole job with trained weights, whose field is the shape."""
    assert ushape("weights", "export", "tiny", "--format", "onnx", "-o", tmp_path / "t").code == 0
    made = {}
    for name, weights in (
        ("torch", ("--model", "tiny")),
        ("onnx", ("--checkpoint", tmp_path / "t")),
    ):
        out = tmp_path / f"{name}.ply"
        done = ushape("refine", inputs / "mesh.ply", inputs / "image.png", *weights, "-o", out)
        assert done.code == 0, done.err
        made[name] = trimesh.load(out)
    assert np.array_equal(made["torch"].faces, made["onnx"].faces)
    assert np.allclose(made["torch"].vertices, made["onnx"].vertices, atol=1e-4)
    out = tmp_path / "example.ply"
    subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "t", inputs / "mesh.ply", inputs / "image.png", out],
        check=True,
    )
    # Other samples of the surface, so another mesh, of the same shape.
    assert trimesh.load(out).is_watertight
    assert abs(trimesh.load(out).volume / made["torch"].volume - 1) < 0.05


def test_adapters_and_other_seeds_give_other_graphs(tmp_path: Path, exported: Path):
    """What the hash of a file would not tell: the weights are in the graphs."""
    networks = load_networks(resolve_weights(write_mini(tmp_path / "other.safetensors", seed=1)))
    cases = Cases(MINI, (20,))
    name = "conditioner"
    part = make_part(name, networks, MINI)
    assert NETWORK_OF[name] == "conditioner"
    with torch.no_grad():
        assert errors_of(open_part(exported / f"{name}.onnx"), *cases.follow(name, part))[0] > 0.1
