"""What this process may use: cores and memory, as scheduler, container and machine allow."""

from __future__ import annotations

import math
from pathlib import Path

import psutil

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.processes import available_cores

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
TYPICAL_GIB = 3.0
"""Memory of a worker on a usual sculpt; the limit is for the unusual one."""


def choose_workers(config: EngineConfig, num_tasks: int) -> int:
    """Returns the number of workers: as asked, or one per core as far as the memory allows."""
    wanted = config.workers
    if wanted == 0:
        by_memory = int(usable_memory() / 2**30 // min(config.memory_gib, TYPICAL_GIB))
        wanted = max(1, min(usable_cores(), by_memory))
    return max(1, min(wanted, num_tasks))


def usable_cores() -> int:
    """Returns the cores left by affinity and by the CPU quota of the control groups, at least 1."""
    cores = available_cores()
    for group in _groups("cpu"):
        quota, period = _quota(group)
        if quota > 0 and period > 0:
            cores = min(cores, max(1, math.floor(quota / period)))
    return cores


def usable_memory() -> int:
    """Returns the bytes left on the machine and below every limit of the control groups."""
    free = psutil.virtual_memory().available
    for group in _groups("memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if limit:
            # File cache counts as used there, but is given up on demand.
            free = min(free, max(0, limit - used + _stat(group, "inactive_file")))
    return free


def _groups(controller: str) -> list[Path]:
    """Returns the folders of this process's control group and its parents, versions 1 and 2."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # no Linux
        return []
    found: list[Path] = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = CGROUPS / controller if names else CGROUPS
        own = root / path.lstrip("/")
        # In a container the path may be the host's; its own limits then lie at the root.
        found += [p for p in (own, *own.parents) if p.is_relative_to(root)]
    return found


def _quota(group: Path) -> tuple[int, int]:
    """Returns CPU microseconds per period; zeros where there is no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return (0, 0) if quota == "max" else (int(quota), int(period))
    except (OSError, ValueError):
        return _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")


def _number(path: Path) -> int:
    try:
        return max(0, int(path.read_text()))
    except (OSError, ValueError):  # absent, or "max"
        return 0


def _stat(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
