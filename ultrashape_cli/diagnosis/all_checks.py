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


def paste_block(findings: Sequence[Finding]) -> str:
    """Returns the findings as a block for an issue, without the user's home and secrets."""
    home = str(Path.home())
    lines = []
    for found in findings:
        text = found.message.replace(home, "~") if home != "/" else found.message
        lines.append(f"{found.status:4} {found.name}: {text}")
    return "\n".join(["```", *lines, "```"])


def fixes(findings: Sequence[Finding]) -> list[str]:
    """Returns the commands that help with what is not ok, each once."""
    return list(dict.fromkeys(f.fix for f in findings if f.status != OK and f.fix))
