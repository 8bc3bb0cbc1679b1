"""Held-out assets refined while training: scores, pictures, once for the base."""

from __future__ import annotations

import json

import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.files import read_json
from ultrashape_cli.training.mesh_validation import SCORES
from ultrashape_cli.training.worker import train_run

SETTINGS = {
    "model": "tiny",
    "init": "tiny",
    "num_latents": 256,
    "surface_points": 1024,
    "microbatch": 1,
    "validate_every_steps": 1,
    "validate_meshes": 1,
    "mesh_every_validations": 2,
    "mesh_resolution": 64,
    "learning_rate": 1e-6,
}


def _lines(run) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


@pytest.mark.parametrize("stage", ["dit", "vae"])
def test_base_present_and_average_are_measured_side_by_side(make_run, stage: str) -> None:
    run, config = make_run(steps=2, stage=stage, ema_decay=0.9, **SETTINGS)
    assert train_run(run, config) == 0
    first, second = _lines(run)
    assert "val_chamfer_l1" not in first
    assert 0 < second["val_chamfer_l1"] < 0.5
    for kind in ("base_", "ema_", "coarse_"):
        assert {f"val_{kind}{name}" for name in SCORES} <= second.keys()
    # Two small steps leave the weights close to where they were.
    assert second["val_chamfer_l1"] == pytest.approx(second["val_base_chamfer_l1"], rel=0.5)
    folder = run.root / "samples" / "step-00000002"
    found = read_json(folder / "metrics.json")
    assert found["step"] == 2
    assert found["assets"][0]["id"] == "ball-4"
    assert found["mean"].keys() == {"base", "coarse", "current", "ema"}
    kinds = {path.stem.removeprefix("ball-4-") for path in folder.glob("*.png")}
    assert kinds == {"reference", "coarse", "base", "current", "ema", "truth"}


def test_the_base_is_measured_once_for_all_resumes(make_run, stop_after) -> None:
    settings = {**SETTINGS, "mesh_every_validations": 1}
    run, _ = make_run(steps=2, **settings)
    stored = resolve(file=run.config, environ={}).config
    assert train_run(run, stored, on_step=stop_after(1)) == 143
    base = run.root / "samples" / "base" / "metrics.json"
    before = base.stat().st_mtime_ns
    assert train_run(run, stored) == 0
    assert base.stat().st_mtime_ns == before
    values = {line["val_base_chamfer_l1"] for line in _lines(run)}
    assert len(values) == 1
