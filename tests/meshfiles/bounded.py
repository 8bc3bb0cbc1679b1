"""Bounds of the tests that read whatever bytes: examples, and memory."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings


def many(examples: int) -> Any:
    """Settings of a test with this many examples, the same each time where they are few."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=quiet,
                    derandomize=examples < 100, database=None)  # fmt: skip


@contextlib.contextmanager
def one_gibibyte() -> Iterator[None]:
    """Lets this process take one GiB more than it has; beyond, MemoryError is raised."""
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    now = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(now.split()[1]) * 1024 + (1 << 30), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
