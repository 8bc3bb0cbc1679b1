"""A worker whose steps do what the name of the source file says; started by the engine tests."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import disk_errors, temporary_path
from ultrashape_cli.preparation import worker
from ultrashape_cli.preparation.steps import STEP_TABLE, Step, StepResult


def _hang(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path.with_suffix(".pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def _fail(message: str) -> None:
    raise MeshError(message, hint="a hint")


def _raise() -> None:
    raise RuntimeError("two\n  lines " + "x" * 5000)


def _crash_once(path: Path) -> None:
    marker = path.with_suffix(".tried")
    if not marker.exists():
        marker.touch()
        os.abort()


def _full() -> None:
    with disk_errors(Path("data")):
        raise OSError(errno.ENOSPC, "full")


def _keep(count: int) -> None:
    np.ones(count)


FAULTS = {
    "abort": lambda path: os.abort(),
    "segfault": lambda path: ctypes.string_at(0),
    "exit": lambda path: sys.exit(0),
    "kill": lambda path: os.kill(os.getpid(), 9),
    "hang": _hang,
    "spin": lambda path: all(iter(lambda: True, False)),
    "allocate": lambda path: _keep(2**33),
    "error": lambda path: _fail("the file is bad"),
    "raise": lambda path: _raise(),
    "disk": lambda path: _full(),
    "closed": lambda path: (os.closerange(3, 256), time.sleep(600)),
    "pause": lambda path: time.sleep(0.7),
    "slow": lambda path: time.sleep(0.05),
    "flaky": lambda path: _crash_once(path),
}


def _act(record: Record) -> None:
    path = Path(record.source["path"])
    fault = FAULTS.get(path.stem.split("-")[0])
    if fault:
        fault(path)


def _output(name: str, path: Path, record: Record, dataset: Dataset) -> StepResult:
    dataset.root.mkdir(exist_ok=True)
    with (dataset.root / "calls.txt").open("a") as file:
        file.write(f"{record.id} {name}\n")
    with temporary_path(path) as temporary:
        temporary.write_bytes(b"12345")
        _act(record)
    # Steps measure with numpy, and a ratio may be undefined.
    measured = {"n": np.int64(3), "ratio": np.float32("nan"), "box": np.zeros(2), "rung": "stub"}
    if record.id.startswith("branching"):
        measured["missing"] = "pymeshlab cannot load: apt-get install libgl1"
    return measured, [path]


def _measure(dataset: Dataset, record: Record, config) -> StepResult:
    with (dataset.root / "calls.txt").open("a") as file:
        file.write(f"{record.id} quality\n")
    return {"detail": 5.0, "source_faces": 1000}, []


def _step(name: str, path) -> Step:
    def run(dataset: Dataset, record: Record, config) -> StepResult:
        return _output(name, path(dataset, record), record, dataset)

    real = STEP_TABLE[name]
    return Step(name, real.version, real.params, run)


STEP_TABLE["watertight"] = _step("watertight", lambda data, record: data.mesh(record.id))
STEP_TABLE["quality"] = replace(STEP_TABLE["quality"], run=_measure)
STEP_TABLE["render"] = _step("render", lambda data, record: data.views(record.id) / "view_000.png")
STEP_TABLE["sample"] = _step("sample", lambda data, record: data.samples(record.id))

if __name__ == "__main__":
    worker.main()
