"""One process trains a run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultrashape_cli.errors import UsageError
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.ownership import owning

HOLD = (
    "import sys; from pathlib import Path; from ultrashape_cli.runs import RunFolder\n"
    "from ultrashape_cli.training.ownership import owning\n"
    "with owning(RunFolder(Path(sys.argv[1]))):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(UsageError) as refused, owning(run):
        pass
    assert f"process {first.pid} on `{os.uname().nodename}`" in refused.value.message
    assert str(run.root) in str(refused.value.hint)
    first.kill()
    first.communicate()
    with owning(run):
        pass


def test_without_locks_the_heartbeat_decides(tmp_path: Path, monkeypatch) -> None:
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    run = RunFolder(tmp_path / "run")
    with owning(run):
        run.write_status("running", step=1)
    with pytest.raises(UsageError, match=f"process {os.getpid()}"), owning(run):
        pass
    run.write_status("stopped", step=1)
    with owning(run):
        pass
