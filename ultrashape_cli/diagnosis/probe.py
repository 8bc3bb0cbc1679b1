"""Runs in a process of its own: asks torch about the card, times attention, plans the run.

`python -m ultrashape_cli.diagnosis.probe`, the settings as JSON on standard input, one JSON object
per part on standard output. A driver that hangs, hangs here, where it can be killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any


def main() -> None:
    """Prints the parts as they are done."""
    settings = json.loads(sys.stdin.read())
    for part in parts(settings):
        sys.stdout.write(json.dumps(part) + "\n")
        sys.stdout.flush()


def parts(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what torch is, what its devices can, how fast attention is, and the plan."""
    import torch

    yield {
        "torch": str(torch.__version__),
        "cuda_build": torch.version.cuda,
        "arch_list": torch.cuda.get_arch_list() if torch.version.cuda else [],
    }
    yield _devices()
    if torch.version.cuda and torch.cuda.is_available():
        yield {"bf16_product": _bf16_works()}
    yield {"attention": _attention(settings)}
    yield {"plan": _plan(settings)}


def _devices() -> dict[str, Any]:
    import torch

    if not torch.version.cuda:
        return {"devices": [], "cuda_error": None}
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return {"devices": [], "cuda_error": str(error).splitlines()[0]}
    return {
        "cuda_error": None,
        "devices": [
            {
                "name": torch.cuda.get_device_name(index),
                "capability": list(torch.cuda.get_device_capability(index)),
                "total_gib": torch.cuda.get_device_properties(index).total_memory / 2**30,
            }
            for index in range(torch.cuda.device_count())
        ],
    }


def _bf16_works() -> bool:
    """Says whether a product in bf16 comes out right on the card."""
    import torch

    ones = torch.ones(256, 256, device="cuda", dtype=torch.bfloat16)
    return bool((ones @ ones == 256).all())


def _attention(settings: dict[str, Any]) -> dict[str, Any]:
    import torch

    from ultrashape_cli.models.attention_choice import AttentionShape, is_native, time_backends
    from ultrashape_cli.models.registry import model_spec

    cuda = bool(torch.version.cuda) and torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    spec = model_spec(settings["train.model"])
    # A CPU would need minutes for the tokens of a card.
    tokens = min(settings["train.num_latents"], 8192 if cuda else 512)
    shape = AttentionShape(
        1, spec.dit.num_heads, tokens, tokens, spec.dit.width // spec.dit.num_heads
    )
    usable = [name for name in ("sdpa", "cudnn", "flash") if is_native(name, device, dtype)]
    seconds = time_backends([shape], device=device, dtype=dtype, backward=True, candidates=usable)
    return {"seconds": seconds, "tokens": tokens, "device": device}


def _plan(settings: dict[str, Any]) -> dict[str, Any]:
    from ultrashape_cli.config.profiles import get_profile
    from ultrashape_cli.config.resolve import restore
    from ultrashape_cli.errors import UShapeError
    from ultrashape_cli.training.memory.plan import check_plan, lower_strategy, plan_run

    config, profile = restore(settings), get_profile(settings["profile"])
    problem = hint = None
    try:
        plan = plan_run(config, profile)
    except UShapeError as error:
        return {"problem": error.message, "hint": error.hint}
    try:
        check_plan(plan, config, profile)
    except UShapeError as error:
        problem, hint = error.message, error.hint
    return {
        "problem": problem,
        "hint": hint,
        "lower": lower_strategy(config),
        "device_gib": plan.device_bytes / 2**30,
        "host_gib": plan.host_bytes / 2**30,
        "checkpoint_gib": plan.checkpoint_bytes / 2**30,
        "kept_checkpoints": plan.kept_checkpoints,
        "reason": plan.strategy.reason,
        "hours": plan.hours,
    }


if __name__ == "__main__":
    main()
