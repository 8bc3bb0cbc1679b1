"""Readings of the machine: GPUs through NVML where there are any, CPU, memory, disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int
    name: str
    utilisation: int | None
    """Per cent; None here and below where the driver does not tell (MIG, virtual GPUs)."""
    used_gib: float | None
    total_gib: float | None
    celsius: int | None
    watts: float | None


@dataclass(frozen=True, slots=True)
class Machine:
    """One reading."""

    cpu: float
    """Per cent over all cores since the last reading."""
    used_gib: float
    """Of the memory this process may use: the container's where it has a limit."""
    total_gib: float
    disk_free_gib: float
    gpus: tuple[Gpu, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


class MachineReader:
    """Reads the machine again and again; the GPU library is loaded once."""

    def __init__(self, folder: Path) -> None:
        """`folder` names the disk that matters."""
        self._folder = folder
        self._nvml = _open_nvml()
        # The first answer of psutil is about no time at all.
        self._cpu_interval: float | None = 0.1

    def read(self) -> Machine:
        """Returns a reading."""
        interval, self._cpu_interval = self._cpu_interval, None
        used, total = read_memory()
        try:
            free = shutil.disk_usage(self._folder).free / 2**30
        except OSError:  # unmounted, or deleted meanwhile
            free = 0.0
        return Machine(
            cpu=psutil.cpu_percent(interval),
            used_gib=used / 2**30,
            total_gib=total / 2**30,
            disk_free_gib=free,
            gpus=tuple(_gpus(self._nvml)),
        )


def read_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Returns the bytes of memory used and there: the container's where it has less."""
    memory = psutil.virtual_memory()
    used, total = memory.total - memory.available, memory.total
    try:
        limit = int((cgroup / "memory.max").read_text())
        current = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, no limit ("max"), or the older cgroups
        return used, total
    if limit >= total:
        return used, total
    # Files that can be dropped at once are no use of memory.
    return max(0, current - int(stat.get("inactive_file", 0))), limit


def _open_nvml() -> Any:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _gpus(nvml: Any) -> list[Gpu]:
    if nvml is None:
        return []
    try:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(reading: Callable[[], Any]) -> Any:
        try:
            return reading()
        except nvml.NVMLError:
            return None

    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    watts = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return Gpu(
        index=index,
        name=str(ask(lambda: nvml.nvmlDeviceGetName(handle))),
        utilisation=ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        used_gib=memory and memory.used / 2**30,
        total_gib=memory and memory.total / 2**30,
        celsius=ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        watts=watts and watts / 1000,
    )
