"""The plan of a run beside what the full model really holds, counted under CUDA's autocast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import device
import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.inference.memory import measure_refinement
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.training.memory.plan import plan_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(device.why_not() is not None, reason=str(device.why_not())),
]
WITHIN = 0.03
FREE = 0.04
"""Part of the card that a default must leave."""


def count(library: Path, *arguments: str, script: str = "count.py") -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name(script)), str(library), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# Launches and GB of traffic of a microbatch, forward and backward.
CASES = {
    "a40": (("a40",), 7_000, 465),
    "h100": (("h100",), 5_600, 378),
    "a5000": (("a5000", "train.strategy=full-offload"), 5_600, 430),
    "a5000 with little host memory": (("a5000", "train.strategy=experts-frozen"), 5_000, 400),
    "rtx5070ti-16": (("rtx5070ti-16",), 8_400, 560),
}


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_what_is_counted(library: Path, case: str) -> None:
    arguments, launches, traffic = CASES[case]
    found = count(library, *arguments)
    assert found["static"] == pytest.approx(found["plan_static"], rel=1e-3)
    assert found["activations"] == pytest.approx(found["plan_activations"], rel=WITHIN)
    assert found["encode"] == pytest.approx(found["plan_encode"], rel=WITHIN)
    assert found["plan"] <= (1 - FREE) * found["card"]
    assert found["flops"] == found["plan_flops"]
    assert found["moved"] == pytest.approx(found["plan_moved"], rel=WITHIN)
    assert found["both"][0] <= launches
    assert found["both"][1] <= traffic * 1e9
    # Copies in fp32 of what is bf16 doubled it once.
    kept = found["saved"]
    assert kept["float32"] <= 0.06 * kept["bfloat16"]


# Kernels and GB of one guided evaluation.
REFINEMENTS = {
    ("8192", "resident"): (2_000, 178),
    ("32768", "resident"): (2_000, 670),
    ("8192", "int8"): (4_000, 250),
}


@pytest.mark.parametrize("case", REFINEMENTS)
def test_a_refinement_takes_what_is_planned(library: Path, case: tuple[str, str]) -> None:
    launches, traffic = REFINEMENTS[case]
    found = count(library, *case, script="count_refine.py")
    for stage, size in found["planned"].items():
        assert found["counted"][stage] == pytest.approx(size, rel=WITHIN), stage
    # More than it takes costs smaller chunks, less would cost the run.
    assert 0.6 * found["plan_per_query"] <= found["per_query"] <= found["plan_per_query"]
    assert found["launches"] <= launches
    assert found["traffic"] <= traffic * 1e9


@pytest.mark.parametrize("profile", ["a40", "a5000", "h100", "rtx5070ti-16"])
def test_a_validation_fits_where_a_microbatch_does(profile: str) -> None:
    resolved = resolve(flags={"profile": profile}, environ={})
    plan = plan_run(resolved.config, resolved.profile)
    tokens = resolved.config.train.num_latents
    spec = model_spec(resolved.config.train.model)
    found = measure_refinement(spec, resolved.config.refine, tokens, accelerator=True)
    # Trained network and conditioner are there; the decoder comes beside them, and chunks of its
    # queries take what is left.
    needed = found.weights["decode"] + max(found.activations.values())
    left = resolved.profile.memory_gib * 2**30 - plan.device_bytes
    assert needed <= plan.footprint.activation_peak + left


@pytest.mark.parametrize(
    ("profile", "processes", "settings"),
    [
        ("a40", 2, ()),
        ("a5000", 4, ("train.strategy=sharded",)),
        ("rtx4090", 4, ("train.strategy=sharded",)),
        ("h100", 8, ()),
        ("h200", 8, ()),
    ],
)
def test_several_cards_have_room_too(
    profile: str, processes: int, settings: tuple[str, ...]
) -> None:
    flags = {"profile": profile, "launch.num_processes": processes}
    resolved = resolve(flags=flags, overrides=settings, environ={})
    plan = plan_run(resolved.config, resolved.profile)
    assert plan.device_bytes <= (1 - FREE) * resolved.profile.memory_gib * 2**30
