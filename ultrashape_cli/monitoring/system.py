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
    total_gib: float
    disk_free_gib: float
    gpus: tuple[Gpu, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def read_machine(folder: Path) -> Machine:
    """Reads the machine; `folder` names the disk that matters."""
    memory = psutil.virtual_memory()
    return Machine(
        cpu=psutil.cpu_percent(),
        used_gib=(memory.total - memory.available) / 2**30,
        total_gib=memory.total / 2**30,
        disk_free_gib=shutil.disk_usage(folder).free / 2**30,
        gpus=tuple(_gpus()),
    )


def _gpus() -> list[Gpu]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


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
