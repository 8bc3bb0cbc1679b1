"""Checks of driver, torch, cards, attention, and of the plan they imply."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ultrashape_cli.config.schema import flatten
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject
from ultrashape_cli.monitoring.system import read_memory

PROBE_LIMIT_S = 120.0
BUSY_GIB = 1.0
"""Memory that others may use on a card before it counts as busy."""
TORCH_FIX = "pip install --upgrade torch --index-url https://download.pytorch.org/whl/{}"
"""For a CUDA version, such as `cu126`."""


def check_driver(subject: Subject) -> Iterator[Finding]:
    """Tells the driver's version and what occupies the cards before a run."""
    driver = read_driver()
    if driver is None:
        yield Finding("driver", WARN, "no NVIDIA driver: everything runs on the CPU")
        return
    cuda = driver["cuda"]
    yield Finding("driver", OK, f"{driver['version']}, for CUDA up to {cuda[0]}.{cuda[1]}")
    for index, used in enumerate(driver["used_gib"]):
        if used > BUSY_GIB:
            message = f"{used:.1f} GiB of GPU {index} are in use before anything starts"
            yield Finding("gpu memory", WARN, message, "nvidia-smi")


def read_driver() -> dict[str, Any] | None:
    """Returns `version`, `cuda` (major, minor) and `used_gib` of each card; None without driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return {
            "version": str(pynvml.nvmlSystemGetDriverVersion()),
            "cuda": (number // 1000, number % 1000 // 10),
            "used_gib": [_used_gib(pynvml, handle) for handle in handles],
        }
    finally:
        pynvml.nvmlShutdown()


def _used_gib(nvml: Any, handle: Any) -> float:
    try:
        return float(nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**30)
    except nvml.NVMLError:  # boards that share the host's memory do not tell
        return 0.0


def check_torch(subject: Subject) -> Iterator[Finding]:
    """Asks torch in a process of its own, and judges what it answers."""
    answer, problem = run_probe(subject)
    if "torch" not in answer:
        yield Finding("torch", FAIL, problem or "torch does not load", "pip install torch")
        return
    driver = read_driver()
    yield from judge_pairing(answer, driver["cuda"] if driver else None)
    yield from judge_devices(answer)
    yield from judge_attention(answer)
    yield from judge_plan(answer, subject)
    if problem:
        yield Finding("torch", WARN, problem)


def run_probe(subject: Subject, limit_s: float = PROBE_LIMIT_S) -> tuple[dict[str, Any], str]:
    """Returns what the probe told, all parts together, and why it told no more."""
    settings = flatten(subject.resolved.config) | {"profile": subject.resolved.profile.name}
    command = [sys.executable, "-m", "ultrashape_cli.diagnosis.probe"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    ) as process:
        try:
            out, err = process.communicate(json.dumps(settings), timeout=limit_s)
            problem = ""
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            problem = f"no further answer within {limit_s:.0f} s"
    if process.returncode and not problem:
        problem = (err.strip().splitlines() or ["it ended without a word"])[-1]
    answer: dict[str, Any] = {}
    for line in out.splitlines():
        answer |= json.loads(line)
    return answer, problem


def judge_pairing(answer: dict[str, Any], driver: tuple[int, int] | None) -> Iterator[Finding]:
    """Says whether torch and the driver fit each other.

    Args:
        answer: Of the probe.
        driver: Newest CUDA version (major, minor) of the driver; None without one.
    """
    build, version = answer["cuda_build"], answer["torch"]
    if driver is None:
        yield Finding("torch", OK, f"{version} ({f'for CUDA {build}' if build else 'CPU'})")
        return
    name = f"cu{driver[0]}{driver[1]}"
    if build is None:
        message = f"{version} is built without CUDA, but there is an NVIDIA driver"
        yield Finding("torch", FAIL, message, TORCH_FIX.format(name))
        return
    major = int(build.split(".")[0])
    # Within a major version older drivers run newer builds.
    if major > driver[0]:
        message = (
            f"{version} is built for CUDA {build}, the driver ends at {driver[0]}.{driver[1]}: "
            "a newer driver, or an older build"
        )
        yield Finding("torch", FAIL, message, TORCH_FIX.format(name))
    elif answer.get("cuda_error"):
        yield Finding("torch", FAIL, f"{version} cannot use the card: {answer['cuda_error']}",
                      "nvidia-smi")  # fmt: skip
    else:
        yield Finding("torch", OK, f"{version} for CUDA {build}")


def judge_devices(answer: dict[str, Any]) -> Iterator[Finding]:
    """Says for each card whether torch has code for it, and whether it computes in bf16."""
    built = [arch for arch in answer.get("arch_list", ()) if arch.startswith("sm_")]
    for index, device in enumerate(answer.get("devices", ())):
        major, minor = device["capability"]
        text = f"{device['name']}, {device['total_gib']:.1f} GiB, sm_{major}{minor}"
        fits = any(_runs_on(arch, major, minor) for arch in built)
        if built and not fits:
            message = f"{text}: this torch has no code for it ({' '.join(built)})"
            yield Finding(f"gpu{index}", FAIL, message, TORCH_FIX.format("cu128"))
        else:
            yield Finding(f"gpu{index}", OK, text)
        if major < 8:
            yield Finding("bf16", WARN, f"{device['name']} has none: slow emulation at best",
                          "ushape train --set train.dtype=fp32")  # fmt: skip
    if answer.get("devices") and "bf16_product" in answer:
        works = answer["bf16_product"]
        message = "a product comes out right" if works else "a product comes out WRONG: bad card?"
        yield Finding("bf16", OK if works else FAIL, message)


def _runs_on(arch: str, major: int, minor: int) -> bool:
    """Says whether code for `sm_MAJORMINOR` runs on a card: same major, not newer."""
    digits = arch.removeprefix("sm_").rstrip("af")
    return int(digits[:-1]) == major and int(digits[-1]) <= minor


def judge_attention(answer: dict[str, Any]) -> Iterator[Finding]:
    """Tells the backends of attention, fastest first."""
    found = answer.get("attention")
    if found is None:
        return
    order = sorted(found["seconds"].items(), key=lambda item: item[1])
    times = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in order)
    message = f"{times} ({found['tokens']:,} tokens, forward and backward, {found['device']})"
    slow = len(order) > 1 and order[0][0] != "sdpa" and order[0][1] < 0.8 * found["seconds"]["sdpa"]
    fix = "ushape train --set train.attention=auto" if slow else ""
    yield Finding("attention", OK if order else FAIL, message if order else "none works", fix)


def judge_plan(answer: dict[str, Any], subject: Subject) -> Iterator[Finding]:
    """Says what the profile implies, and whether card, host and disk have room for it."""
    config, profile = subject.resolved.config, subject.resolved.profile
    plan = answer.get("plan")
    if plan is None:
        yield Finding("plan", WARN, "not computed in time", subject.train("--dry-run"))
        return
    settings = config.train
    used, total = (size / 2**30 for size in read_memory())
    there = f" of {profile.memory_gib:g}" if profile.memory_gib else ""
    text = f"{profile.name}: {settings.strategy} in {settings.dtype}, {settings.model}"
    if plan["problem"]:
        message = f"{text}: {plan['problem']}"
        yield Finding("profile", FAIL, message, _lower(subject, plan["hint"]))
    if "device_gib" not in plan:
        return
    if not plan["problem"]:
        message = f"{text}, needs about {plan['device_gib']:.1f}{there} GiB per process"
        # Without a card this is memory of the host.
        status = OK if profile.memory_gib else _judge(plan["device_gib"], used, total)
        if status == FAIL:
            message += f", and this machine has {total:.1f}"
        fix = "" if status == OK else _lower(subject, plan["lower"])
        yield Finding("profile", status, message, fix)
    yield from _judge_host(plan, subject, used, total)


def _judge_host(
    plan: dict[str, Any], subject: Subject, used: float, total: float
) -> Iterator[Finding]:
    """Says whether memory and disk of the host have room for a plan."""
    on_cpu = not subject.resolved.profile.memory_gib
    need = plan["host_gib"] + (plan["device_gib"] if on_cpu else 0.0)
    message = f"{total - used:.1f} of {total:.1f} GiB free, the strategy needs about {need:.1f}"
    status, fix = _judge(need, used, total), ""
    if status != OK:
        # A checkpoint that is written beside the training is a copy in memory.
        enough = _judge(need - plan["checkpoint_gib"], used, total) != FAIL
        saves = enough and subject.resolved.config.train.async_checkpoints
        option = "--set train.async_checkpoints=false"
        fix = subject.train(option) if saves else _lower(subject, plan["lower"])
    yield Finding("host memory", status, message, fix)
    kept = plan["checkpoint_gib"] * plan["kept_checkpoints"]
    folder = subject.runs if subject.runs.exists() else subject.runs.absolute().parent
    free = shutil.disk_usage(folder).free / 2**30
    message = (
        f"{free:.1f} GiB free for runs; {plan['kept_checkpoints']} checkpoints of "
        f"{plan['checkpoint_gib']:.2f} GiB take {kept:.1f}"
    )
    fix = subject.train("--set train.keep_checkpoints=1 --out A_LARGER_DISK")
    yield Finding("disk", FAIL if kept > free else OK, message, fix if kept > free else "")


def _judge(need: float, used: float, total: float) -> str:
    return FAIL if need > total else WARN if need > total - used else OK


def _lower(subject: Subject, option: str | None) -> str:
    """Returns the command that needs less; on a CPU the released model has none that fits."""
    on_cpu = not subject.resolved.profile.memory_gib
    if on_cpu and subject.resolved.config.train.model != "tiny":
        return "ushape train --model tiny"
    return subject.train(option) if option and option.startswith("--") else ""
