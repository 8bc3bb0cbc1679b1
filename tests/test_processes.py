"""Processes that others have started: told apart, and ended without native destructors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ultrashape_cli import __version__


@pytest.mark.parametrize(
    ("arguments", "code", "out"), [(["--version"], 0, f"{__version__}\n"), (["--wrong"], 2, "")]
)
def test_a_distributed_child_says_all_and_keeps_its_code(arguments, code: int, out: str) -> None:
    """What it prints goes to a pipe, which is flushed at the end only."""
    child = "import atexit, sys; atexit.register(print, 'destructors')\n"
    child += f"sys.argv[1:] = {arguments!r}; from ultrashape_cli.__main__ import main; main()"
    environment = {**os.environ, "LOCAL_RANK": "1", "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, out)
