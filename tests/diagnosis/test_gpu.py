"""What is said about cards, from recorded answers: the suite runs without one."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.diagnosis import gpu
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject

H100 = {"name": "NVIDIA H100", "capability": [9, 0], "total_gib": 79.6}
ANSWER: dict[str, Any] = {
    "torch": "2.9.0+cu128",
    "cuda_build": "12.8",
    "arch_list": ["sm_80", "sm_86", "sm_90", "compute_90"],
    "cuda_error": None,
    "devices": [H100],
    "bf16_product": True,
}
PLAN = {
    "problem": None,
    "hint": None,
    "lower": "--set train.strategy=full-8bit",
    "device_gib": 60.0,
    "host_gib": 1.0,
    "checkpoint_gib": 0.001,
    "kept_checkpoints": 4,
    "reason": "",
    "hours": 10.0,
}


def _subject(**flags: Any) -> Subject:
    return Subject(resolve(flags={"profile": "h100", **flags}, environ={}))


def _pairing(driver: tuple[int, int] | None, **changes: Any) -> Finding:
    (found,) = gpu.judge_pairing(ANSWER | changes, driver)
    return found


def test_torch_and_driver_that_fit_are_ok() -> None:
    assert _pairing((13, 0)).status == _pairing((12, 8)).status == OK
    # Builds of one major version run on all its drivers.
    assert _pairing((12, 2)).status == OK


def test_a_driver_that_is_too_old_is_told_with_the_build_for_it() -> None:
    found = _pairing((11, 8))
    assert found.status == FAIL
    assert found.fix.endswith("/cu118")


def test_a_cpu_build_beside_a_driver_fails_and_alone_is_fine() -> None:
    found = _pairing((12, 4), cuda_build=None)
    assert (found.status, found.fix[-5:]) == (FAIL, "cu124")
    assert _pairing(None, cuda_build=None).status == OK


def test_a_card_that_torch_cannot_use_is_told_with_the_reason() -> None:
    found = _pairing((12, 8), cuda_error="CUDA unknown error")
    assert (found.status, "unknown error" in found.message) == (FAIL, True)


def test_a_card_that_torch_has_no_code_for_fails() -> None:
    blackwell = {"name": "NVIDIA RTX 5070 Ti", "capability": [12, 0], "total_gib": 15.5}
    (found,) = (f for f in gpu.judge_devices(ANSWER | {"devices": [blackwell]}) if f.fix)
    assert (found.name, found.status) == ("gpu0", FAIL)
    ada = {"name": "NVIDIA RTX 4090", "capability": [8, 9], "total_gib": 23.6}
    assert all(f.status == OK for f in gpu.judge_devices(ANSWER | {"devices": [H100, ada]}))


def test_bf16_is_tried_and_old_cards_are_warned_of() -> None:
    statuses = {f.status for f in gpu.judge_devices(ANSWER | {"bf16_product": False})}
    assert FAIL in statuses
    turing = {"name": "NVIDIA T4", "capability": [7, 5], "total_gib": 14.6}
    answer = ANSWER | {"devices": [turing], "arch_list": ["sm_75"]}
    assert WARN in {f.status for f in gpu.judge_devices(answer)}


def test_attention_backends_are_told_fastest_first() -> None:
    timed = {"seconds": {"sdpa": 0.02, "flash": 0.01}, "tokens": 8192, "device": "cuda"}
    (found,) = gpu.judge_attention({"attention": timed})
    assert found.message.startswith("flash 10.0 ms, sdpa 20.0 ms (8,192 tokens")
    assert "attention=auto" in found.fix
    (found,) = gpu.judge_attention({"attention": timed | {"seconds": {"sdpa": 0.02}}})
    assert found.fix == ""


def _plan(**changes: Any) -> dict[str, Finding]:
    return {f.name: f for f in gpu.judge_plan({"plan": PLAN | changes}, _subject())}


def test_the_plan_is_held_against_card_host_and_disk(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "read_memory", lambda: (10 * 2**30, 64 * 2**30))
    found = _plan()
    assert {f.status for f in found.values()} == {OK}
    assert found["profile"].message == (
        "h100: full in bf16, ultrashape-1.0, needs about 60.0 of 79 GiB per process"
    )
    assert _plan(host_gib=60.0)["host memory"].status == WARN
    assert _plan(host_gib=65.0)["host memory"].status == FAIL
    assert _plan(checkpoint_gib=1e6)["disk"].status == FAIL
    failed = _plan(problem="too little", hint="--set train.strategy=lora")["profile"]
    assert failed.status == FAIL
    assert failed.fix == "ushape train --profile h100 --set train.strategy=lora"


@pytest.mark.parametrize(
    ("device_gib", "model", "status", "fix"),
    [
        (10.0, "ultrashape-1.0", OK, ""),
        (60.0, "tiny", WARN, "--profile cpu --model tiny --set train.strategy=full-8bit"),
        (94.4, "ultrashape-1.0", FAIL, "--model tiny"),
    ],
)
def test_without_a_card_the_hosts_memory_counts(
    monkeypatch, device_gib, model, status, fix
) -> None:
    monkeypatch.setattr(gpu, "read_memory", lambda: (10 * 2**30, 64 * 2**30))
    subject = _subject(profile="cpu", **{"train.model": model})
    found = {
        f.name: f for f in gpu.judge_plan({"plan": PLAN | {"device_gib": device_gib}}, subject)
    }
    assert (found["profile"].status, found["host memory"].status) == (status, status)
    assert found["profile"].fix == (fix and f"ushape train {fix}")
    assert ("this machine has 64.0" in found["profile"].message) == (status == FAIL)


def test_checkpoints_without_a_copy_are_told_where_they_are_enough(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "read_memory", lambda: (10 * 2**30, 64 * 2**30))
    plan = _plan(host_gib=70.0, checkpoint_gib=20.0)["host memory"]
    assert plan.fix == "ushape train --profile h100 --set train.async_checkpoints=false"
    plan = _plan(host_gib=70.0, checkpoint_gib=2.0)["host memory"]
    assert plan.fix == "ushape train --profile h100 --set train.strategy=full-8bit"


def test_a_plan_that_came_too_late_is_no_failure() -> None:
    (found,) = gpu.judge_plan({}, _subject())
    assert (found.status, found.fix) == (WARN, "ushape train --profile h100 --dry-run")


def test_a_machine_without_a_driver_is_told(monkeypatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    (found,) = gpu.check_driver(_subject())
    assert (found.status, "CPU" in found.message) == (WARN, True)


def test_cards_in_use_before_anything_starts_are_told(monkeypatch) -> None:
    driver = {"version": "570.1", "cuda": (12, 8), "used_gib": [0.4, 30.0]}
    monkeypatch.setattr(gpu, "read_driver", lambda: driver)
    first, second = gpu.check_driver(_subject())
    assert first == Finding("driver", OK, "570.1, for CUDA up to 12.8")
    assert "30.0 GiB of GPU 1" in second.message


def test_a_probe_that_hangs_is_killed_and_what_it_told_counts() -> None:
    answer, problem = gpu.run_probe(_subject(profile="cpu"), limit_s=0.05)
    assert "no further answer" in problem
    assert "plan" not in answer


@pytest.mark.parametrize("arch", ["sm_90", "sm_90a", "sm_86"])
def test_code_runs_on_cards_of_its_major_version(arch: str) -> None:
    assert gpu._runs_on(arch, 9, 0) == arch.startswith("sm_9")
    assert gpu._runs_on(arch, 8, 9) == (arch == "sm_86")
    assert not gpu._runs_on(arch, 12, 0)
