from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from ultrashape_cli.monitoring import system


def test_the_machine_is_read(tmp_path: Path) -> None:
    machine = system.MachineReader(tmp_path).read()
    assert 0 < machine.used_gib < machine.total_gib
    assert machine.disk_free_gib > 0
    json.dumps(machine.to_json())


def test_a_vanished_disk_is_survived(tmp_path: Path) -> None:
    assert system.MachineReader(tmp_path / "gone").read().disk_free_gib == 0.0


def test_the_memory_of_a_container_is_its_own(tmp_path: Path) -> None:
    assert system.read_memory(tmp_path) == pytest.approx(system.read_memory(), rel=0.2)
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**28}\n")
    assert system.read_memory(tmp_path) == (2**28, 2**30)
    (tmp_path / "memory.max").write_text("max\n")
    assert system.read_memory(tmp_path)[1] > 2**30


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert system._gpus(system._open_nvml()) == []


def test_a_reading_the_driver_refuses_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    fakes = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=2**30, total=2**31),
        "nvmlDeviceGetName": lambda _: "NVIDIA A40",
        "nvmlDeviceGetUtilizationRates": refuse,
        "nvmlDeviceGetTemperature": lambda *_: 40,
        "nvmlDeviceGetPowerUsage": refuse,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    assert system._gpus(system._open_nvml()) == [
        system.Gpu(0, "NVIDIA A40", None, 1.0, 2.0, 40, None)
    ]
