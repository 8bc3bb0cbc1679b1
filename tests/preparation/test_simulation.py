"""The simulated night of examples/bench/engine.py, small: faults, kills, three runs at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "examples" / "bench" / "engine.py"


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    options = ("--assets", 100, "--workers", 2, "--kills", 4, "--pause", 0.8, "--timeout", 5)
    command = [sys.executable, BENCH, "simulate", tmp_path / "night", *options]
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "killed" in result.stdout
    assert "WRONG" not in result.stdout
