"""`ushape train --benchmark`: whole steps on made-up data, beside the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SMALL = ("num_latents=16", "surface_points=256", "query_points=64", "accumulation=2")


@pytest.mark.parametrize(
    "settings",
    [(), ("stage=vae",), ("strategy=lora",), ("strategy=full-offload",), ("voxel_coarse=0.5",)],
)
def test_a_benchmark_times_steps_and_weighs_memory(
    ushape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [part for setting in (*SMALL, *settings) for part in ("--set", f"train.{setting}")]
    machine = ("--profile", "cpu", "--device", "cpu", "--price-per-hour", 2)
    result = ushape("train", "--model", "tiny", "--benchmark", 2, *machine, *chosen, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["outputs"]
    assert found["seconds_per_microbatch"] == pytest.approx(found["seconds_per_step"] / 2)
    assert 0.5 * found["seconds_per_step"] < sum(found["split"].values())
    assert found["hours"] == pytest.approx(found["seconds_per_step"] * 2000 / 3600)
    assert found["cost"] == pytest.approx(2 * found["hours"])
    for name in ("weights", "optimizer", "frozen encoders"):
        planned, measured = found["memory_bytes"][name]
        assert measured == pytest.approx(planned, rel=0.01), name
    assert not list(tmp_path.iterdir())
