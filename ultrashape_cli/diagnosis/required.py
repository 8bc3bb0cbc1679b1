"""What a rented machine must have before any download: `ushape doctor --require`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from ultrashape_cli.diagnosis import files, gpu
from ultrashape_cli.diagnosis.check import FAIL, OK, Check, Finding, Subject, run_checks
from ultrashape_cli.errors import UsageError

REQUIREMENTS = ("gpu", "driver", "disk", "weights")

_LEAST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""Of a CUDA major version, whose minor versions share it (NVIDIA, CUDA compatibility, on Linux)."""
_OLDER_BUILD = gpu.TORCH_FIX.format("cu126")


def parse_requirements(text: str) -> list[str]:
    """Returns the names of a list with commas between, each once.

    Raises:
        UsageError: No such requirement.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in REQUIREMENTS]
    if unknown or not names:
        raise UsageError(
            f"cannot require `{unknown[0] if unknown else text}`",
            hint=f"--require {','.join(REQUIREMENTS)}, or some of them",
        )
    return list(dict.fromkeys(names))


def check_required(names: Sequence[str], subject: Subject) -> list[Finding]:
    """Returns what was found of each requirement, failed where the machine lacks it."""
    findings: list[Finding] = []
    if "driver" in names:
        findings += run_checks([Check("driver", _check_driver)], subject)
    if "gpu" in names or "disk" in names:
        # One process asks torch for both.
        check = Check("torch", gpu.check_torch, gpu.PROBE_LIMIT_S + 5)
        found = run_checks([check], subject)
        if "gpu" in names:
            seen = [f for f in found if re.fullmatch(r"torch|bf16|gpu\d+", f.name)]
            findings += seen
            if not any(f.name.startswith("gpu") for f in seen):
                findings.append(Finding("gpu", FAIL, "torch sees no NVIDIA card", "nvidia-smi"))
        if "disk" in names:
            disk = [f for f in found if f.name == "disk"]
            unknown = Finding("disk", FAIL, "what a run takes could not be computed",
                              subject.train("--dry-run"))  # fmt: skip
            findings += disk or [unknown]
    if "weights" in names:
        if subject.weights is None:
            findings.append(Finding("weights", FAIL, "none named", "ushape doctor --require "
                                    "weights --init WEIGHTS"))  # fmt: skip
        else:
            findings += run_checks([Check("weights", files.check_weights, 30)], subject)
    return findings


def _check_driver(subject: Subject) -> list[Finding]:
    return [judge_driver(gpu.read_driver(), *installed_torch())]


def judge_driver(
    driver: dict[str, object] | None, torch: str, build: tuple[int, int] | None
) -> Finding:
    """Says whether the driver is there and new enough for the torch that is installed.

    Args:
        driver: Of `read_driver`.
        torch: Its version.
        build: CUDA version it is built for; None for the CPU.
    """
    if build is None:
        message = f"torch {torch} is built for the CPU: it uses no card, whatever the driver"
        return Finding("driver", FAIL, message, _OLDER_BUILD)
    least = _LEAST_DRIVER.get(build[0])
    wanted = f"torch {torch} is built for CUDA {build[0]}.{build[1]}, which needs driver " + (
        f"{least} or newer" if least else f"of CUDA {build[0]} or newer"
    )
    if driver is None:
        return Finding("driver", FAIL, f"{wanted}; this machine has no NVIDIA driver",
                       "nvidia-smi")  # fmt: skip
    version = str(driver["version"])
    if least and _numbers(version) < _numbers(least):
        message = f"{wanted}; this machine has {version}. Rent one with a newer driver, or install"
        return Finding("driver", FAIL, f"{message} a torch for an older CUDA", _OLDER_BUILD)
    return Finding("driver", OK, f"{version}; {wanted}")


def installed_torch() -> tuple[str, tuple[int, int] | None]:
    """Returns torch's version and the CUDA version it is built for, without loading it.

    Raises:
        UsageError: It is not installed.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise UsageError("torch is not installed", hint="pip install torch")
    text = (Path(spec.origin).parent / "version.py").read_text()
    version = re.search(r"^__version__ = '([^']*)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b.* = '(\d+)\.(\d+)", text, re.MULTILINE)
    build = (int(cuda[1]), int(cuda[2])) if cuda else None
    return version[1] if version else "of unknown version", build


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
