from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ultrashape_cli.config.schema import Config, QualityConfig
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.inference import round_trip as round_trip_module
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.preparation import vae_check
from ultrashape_cli.preparation.vae_check import round_trip
from ultrashape_cli.preparation.worker import run_step
from ultrashape_cli.synthetic.figurines import make_figurine


@pytest.fixture(scope="module")
def figurine() -> Mesh:
    mesh = make_figurine(0, 32)
    return Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return build(model_spec("tiny"), device="cpu", components=("vae",)).vae.eval()


def test_a_perfect_round_trip_scores_one(vae, figurine: Mesh, monkeypatch) -> None:
    monkeypatch.setattr(round_trip_module, "reconstruct", lambda vae, mesh, *rest: mesh)
    measured = round_trip(vae, figurine, 64, 32, 0)
    assert measured["vae_f_score"] == pytest.approx(1, abs=1e-3)
    assert measured["vae_has_surface"]


def test_a_field_without_surface_scores_nothing(vae, figurine: Mesh, monkeypatch) -> None:
    monkeypatch.setattr(round_trip_module, "reconstruct", lambda vae, mesh, *rest: None)
    assert round_trip(vae, figurine, 64, 32, 0) == {"vae_f_score": 0.0, "vae_has_surface": False}


def test_the_step_runs_the_networks_and_is_repeatable(vae, figurine: Mesh, tmp_path: Path) -> None:
    checkpoint = tmp_path / "vae.safetensors"
    write_safetensors(checkpoint, {"vae": vae}, metadata={"model": "tiny"})
    dataset = Dataset(tmp_path / "data")
    save_mesh(figurine, dataset.mesh("a"))
    record = Record("a", {"sha256": "s"}, {"watertight": StepRecord("done", "k")})
    quality = QualityConfig(vae_check=str(checkpoint), vae_tokens=64, vae_resolution=24)
    config = replace(Config(), quality=quality, device="cpu")
    results = [run_step(dataset, record, "vae", config) for _ in range(2)]
    assert [r.status for r in results] == ["done"] * 2, results[0].error
    assert results[0].measurements == results[1].measurements
    # Untrained weights reproduce nothing.
    assert results[0].measurements["vae_f_score"] < 0.5


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights at"):
        vae_check.weights_fingerprint(str(tmp_path / "absent.safetensors"))
