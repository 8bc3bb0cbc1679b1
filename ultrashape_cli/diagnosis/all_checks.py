"""All checks of `ushape doctor`, and what is printed of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultrashape_cli.diagnosis import files, gpu, host, network
from ultrashape_cli.diagnosis.check import OK, Check, Finding

CHECKS = (
    Check("python", host.check_python),
    Check("driver", gpu.check_driver),
    Check("torch", gpu.check_torch, gpu.PROBE_LIMIT_S + 5),
    Check("optional", host.check_packages, 65),
    Check("limits", host.check_limits),
    Check("cache", host.check_cache),
    Check("dataset", files.check_data, 60),
    Check("weights", files.check_weights, 30),
    Check("blender", host.check_blender, 20),
    Check("variables", host.check_variables),
)
NETWORK_CHECKS = (
    Check("hub", network.check_hub, 12),
    Check("wandb", network.check_wandb, 12),
)


def without_home(text: str) -> str:
    """Returns a text with `~` for the user's home, to go into an issue."""
    home = str(Path.home())
    return text.replace(home, "~") if home != "/" else text


def fixes(findings: Sequence[Finding]) -> list[str]:
    """Returns the commands that help with what is not ok, each once."""
    return list(dict.fromkeys(f.fix for f in findings if f.status != OK and f.fix))
