"""`--backend aoti`: packages for this machine, which serve all weights of a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from exporting.mini import MINI, write_mini

from ultrashape_cli.evaluation.parity import LIMIT, Cases, errors_of
from ultrashape_cli.exporting import aoti
from ultrashape_cli.exporting.parts import PARTS, make_part
from ultrashape_cli.models.sources import load_networks, resolve_weights

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ushape" / "aoti"


def test_packages_are_kept_by_machine_torch_and_sizes_not_by_weights(monkeypatch, cache: Path):
    first = aoti.cache_folder(MINI)
    assert first.parent == cache
    assert f"torch{torch.__version__}" in first.name
    assert aoti.cache_folder(MINI) == first
    assert aoti.cache_folder(replace(MINI, dit=replace(MINI.dit, depth=3))) != first
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert "torch9.9.9" in aoti.cache_folder(MINI).name


def test_a_model_is_compiled_once_for_all_weights(monkeypatch, inputs: Path, cache: Path):
    """The fast twin of the next test: what is compiled when, without a compiler."""
    compiled: list[str] = []

    def compile_part(name: str, part: object, spec: object, target: Path) -> None:
        compiled.append(name)
        target.write_bytes(b"code")

    monkeypatch.setattr(aoti, "_compile", compile_part)
    monkeypatch.setattr(aoti, "_load", lambda path, part: (path, part))
    networks, told = load_networks(resolve_weights(inputs / "weights.safetensors")), []
    for _ in range(2):
        graphs = aoti.compiled_graphs(networks, MINI, told.append)
        assert all(path.read_bytes() == b"code" for path, _ in graphs.values())
    assert compiled == ["dit", "query"]
    assert str(cache) in told[0]


@needs_compiler
@pytest.mark.slow
def test_a_compiled_part_takes_the_weights_of_any_checkpoint(
    monkeypatch, inputs: Path, tmp_path: Path
):
    monkeypatch.setattr(aoti, "COMPILED", ("query",))
    told: list[str] = []
    files = [inputs / "weights.safetensors", write_mini(tmp_path / "other.safetensors", seed=1)]
    for file in files:
        networks, cases = load_networks(resolve_weights(file)), Cases(MINI, (20, 40))
        graph = aoti.compiled_graphs(networks, MINI, told.append)["query"]
        for name in PARTS:
            given, made = cases.follow(name, make_part(name, networks, MINI))
        assert max(errors_of(graph, given, made)) < LIMIT
    # Once for both.
    assert len([line for line in told if line.startswith("compiling")]) == 1


def test_a_damaged_package_is_removed_and_said_to_be(monkeypatch, inputs: Path, refine, tmp_path):
    folder = aoti.cache_folder(MINI)
    folder.mkdir(parents=True)
    (folder / "dit.pt2").write_bytes(b"half a package")
    done = refine(inputs / "weights.safetensors", "--backend", "aoti", "-o", tmp_path / "out.ply")
    assert done.code == 1
    assert "does not load" in done.err
    assert "repeat the command" in done.err
    assert not (folder / "dit.pt2").exists()


def test_packages_have_no_place_of_their_own(ushape, inputs: Path, tmp_path: Path):
    weights = inputs / "weights.safetensors"
    done = ushape("weights", "export", weights, "--format", "aoti", "-o", tmp_path / "out")
    assert done.code == 2
    assert "--backend aoti" in done.err


@needs_compiler
@pytest.mark.slow
def test_refining_with_compiled_parts_gives_the_mesh_of_torch(
    refine, ushape, inputs: Path, tmp_path: Path
):
    weights = inputs / "weights.safetensors"
    done = ushape("weights", "export", weights, "--format", "aoti", "--json")
    assert done.code == 0, done.err
    parts = json.loads(done.out)["parts"]
    assert set(parts) == {"dit", "query"}
    assert all(each["error"] < LIMIT for part in parts.values() for each in part["parity"])
    made = {}
    for backend in ("torch", "aoti"):
        out = tmp_path / f"{backend}.ply"
        done = refine(weights, "--backend", backend, "-o", out)
        assert done.code == 0, done.err
        assert "compiling" not in done.err, "it was compiled before"
        made[backend] = trimesh.load(out)
    assert np.array_equal(made["torch"].faces, made["aoti"].faces)
    assert np.allclose(made["torch"].vertices, made["aoti"].vertices, atol=1e-4)
