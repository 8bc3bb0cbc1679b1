"""Processes that others have started: told apart, and ended without native destructors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ultrashape_cli import __version__, processes
from ultrashape_cli.config.schema import LaunchConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.processes import forget_others, is_distributed_child, is_main_process


@pytest.mark.parametrize(
    ("arguments", "code", "out"), [(["--version"], 0, f"{__version__}\n"), (["--wrong"], 2, "")]
)
def test_a_distributed_child_says_all_and_keeps_its_code(arguments, code: int, out: str) -> None:
    """What it prints goes to a pipe, which is flushed at the end only."""
    child = "import atexit, sys; atexit.register(print, 'destructors')\n"
    child += f"sys.argv[1:] = {arguments!r}; from ultrashape_cli.__main__ import main; main()"
    environment = {**os.environ, "LOCAL_RANK": "1", "WORLD_SIZE": "2", "RANK": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    done = subprocess.run(
        [sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, out)


def test_without_affinity_all_cores_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert processes.available_cores() == 3
    # As on macOS.
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processes.available_cores() == 12
    assert processes._threads(LaunchConfig(num_processes=4)) == "3"


WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {"HOME": "/nowhere"}
    monkeypatch.setattr(processes.os, "environ", found)
    return found


@pytest.mark.parametrize("lacking", sorted(WHOLE))
def test_only_the_whole_set_of_variables_makes_a_child(environment, lacking: str) -> None:
    environment |= WHOLE
    assert is_distributed_child()
    assert not is_main_process()
    del environment[lacking]
    assert not is_distributed_child()
    assert is_main_process()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
def test_a_single_variable_is_ignored_with_a_word(environment, name: str) -> None:
    environment[name] = "1"
    told = forget_others()
    assert told is not None
    assert told.startswith(f"{name} ignored")
    assert not environment.keys() - {"HOME", "PYTEST_CURRENT_TEST"}
    assert forget_others() is None


def test_a_world_without_a_place_in_it_is_refused(environment) -> None:
    environment |= {"WORLD_SIZE": "2", "RANK": "0"}
    with pytest.raises(UsageError, match="WORLD_SIZE=2 is set, but not LOCAL_RANK"):
        forget_others()


def test_variables_of_other_programs_go(environment) -> None:
    environment |= {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_DEEPSPEED": "true",
                    "FSDP_OFFLOAD_PARAMS": "1", "PMI_SIZE": "4"}  # fmt: skip
    assert forget_others() is None
    assert not environment.keys() - {"HOME", "PYTEST_CURRENT_TEST"}


def test_a_child_ends_with_its_parent() -> None:
    child = (
        "import signal, sys, time; from ultrashape_cli.processes import end_with_parent\n"
        "end_with_parent(signal.SIGTERM); print('ready', flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    # The pipe closes when the child has gone too.
    assert process.stdout.read() == ""
    process.wait()
    process.stdout.close()


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    child = (
        "import signal, time; from ultrashape_cli.processes import end_with_parent\n"
        "end_with_parent(signal.SIGTERM, 1 << 22); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", child], check=False, timeout=30)
    assert done.returncode == -signal.SIGTERM
