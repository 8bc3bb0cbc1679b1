"""The plan of a run beside what the full model really holds, counted under CUDA's autocast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import device
import pytest

pytestmark = pytest.mark.skipif(device.why_not() is not None, reason=str(device.why_not()))
WITHIN = 0.03
FREE = 0.04
"""Part of the card that a default must leave."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return device.build(tmp_path_factory.mktemp("standin"))


def count(library: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("count.py")), str(library), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# Launches and GB of traffic of a microbatch, forward and backward.
CASES = {
    "a40": (("a40",), 7_100, 480),
    "h100": (("h100",), 5_700, 390),
    "a5000": (("a5000", "train.strategy=full-offload"), 5_600, 430),
    "a5000 with little host memory": (("a5000", "train.strategy=experts-frozen"), 5_000, 400),
    "rtx5070ti-16": (("rtx5070ti-16",), 8_400, 560),
}


@pytest.mark.parametrize(
    "case",
    [name if name == "a40" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_the_plan_is_what_is_counted(library: Path, case: str) -> None:
    arguments, launches, traffic = CASES[case]
    found = count(library, *arguments)
    assert found["static"] == pytest.approx(found["plan_static"], rel=1e-3)
    assert found["activations"] == pytest.approx(found["plan_activations"], rel=WITHIN)
    assert found["encode"] == pytest.approx(found["plan_encode"], rel=WITHIN)
    assert found["plan"] <= (1 - FREE) * found["card"]
    assert found["flops"] == found["plan_flops"]
    assert found["moved"] == pytest.approx(found["plan_moved"], rel=0.06)
    assert found["both"][0] <= launches
    assert found["both"][1] <= traffic * 1e9
    # Copies in fp32 of what is bf16 doubled it once.
    kept = found["saved"]
    assert kept["float32"] <= 0.06 * kept["bfloat16"]
