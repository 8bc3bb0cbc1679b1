from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.preparation import limits
from ultrashape_cli.preparation.limits import choose_workers, usable_cores, usable_memory

GIB = 2**30


class Memory:
    available = 7 * GIB


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores, 7 GiB free, and control groups below the returned folder."""
    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(Memory, "available", 7 * GIB)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    monkeypatch.setattr(limits, "CGROUPS", tmp_path)
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def _group(root: Path, membership: str, **files: str) -> None:
    (root / "membership").write_text(membership)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_workers_are_one_per_core_as_far_as_memory_allows() -> None:
    assert choose_workers(EngineConfig(), 100) == 2
    assert choose_workers(EngineConfig(workers=5), 100) == 5
    assert choose_workers(EngineConfig(workers=5), 3) == 3
    assert choose_workers(EngineConfig(memory_gib=1.0), 100) == 7
    Memory.available = 0
    assert choose_workers(EngineConfig(), 100) == 1
    Memory.available = 2**40
    assert choose_workers(EngineConfig(), 100) == 64


def test_a_container_limits_cores_and_memory(machine: Path) -> None:
    _group(
        machine,
        "0::/job/step\n",
        job__cpuDOTmax="400000 100000",
        job__step__cpuDOTmax="max 100000",
        job__memoryDOTmax=str(5 * GIB),
        job__memoryDOTcurrent=str(3 * GIB),
        job__memoryDOTstat=f"anon 5\ninactive_file {GIB}\n",
        job__step__memoryDOTmax="max",
    )
    assert usable_cores() == 4
    assert usable_memory() == 3 * GIB
    assert choose_workers(EngineConfig(memory_gib=1.0), 100) == 3


def test_the_limits_of_the_first_version_count_too(machine: Path) -> None:
    _group(
        machine,
        "4:memory:/a\n3:cpu,cpuacct:/a\n",
        cpu__a__cpuDOTcfs_quota_us="150000",
        cpu__a__cpuDOTcfs_period_us="100000",
        memory__a__memoryDOTlimit_in_bytes=str(2 * GIB),
        memory__a__memoryDOTusage_in_bytes=str(GIB),
    )
    (machine / "cpu,cpuacct").symlink_to(machine / "cpu")
    assert usable_cores() == 1
    assert usable_memory() == GIB


def test_no_limit_is_no_limit(machine: Path) -> None:
    _group(machine, "0::/\n", cpuDOTmax="max 100000", memoryDOTmax="max")
    assert (usable_cores(), usable_memory()) == (64, 7 * GIB)
