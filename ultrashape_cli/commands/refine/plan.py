"""The memory plan of a refinement, shown before the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ultrashape_cli.config.refine import RefineConfig
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def planned(
    ui: UI,
    source: WeightSource,
    config: RefineConfig,
    device: torch.device,
    tokens: int,
    views: int = 1,
) -> RefineConfig:
    """Plans the memory, shows the plan, and returns the settings with its mode and chunk.

    Args:
        ui: Where it is shown.
        source: The weights.
        config: The settings.
        device: Where it runs.
        tokens: Latent tokens.
        views: Images that are asked.

    Raises:
        UsageError: Mode `int8` is asked for of weights that are quantised, or what the backend
            cannot do.
        OutOfMemory: No mode fits; the hint names the option that helps.
    """
    from dataclasses import replace

    from ultrashape_cli.inference.backends import choose_backend
    from ultrashape_cli.inference.memory import check_plan, limit_device, plan_refinement
    from ultrashape_cli.models.registry import model_spec

    spec, quantised = model_spec(source.model), source.quantised
    config = replace(config, backend=choose_backend(source, config, device))
    plan = plan_refinement(spec, config, device, tokens, quantised=quantised, views=views)
    runtime = {"torch": "", "aoti": " (compiled)", "onnx": " (onnxruntime)"}[config.backend]
    codes = f" ({quantised.scheme} codes in the DiT)" if quantised else ""
    gib = 2**30
    stages = ", ".join(f"{name} {size / gib:.2f}" for name, size in plan.stages.items())
    ui.info(
        f"memory: {plan.mode} weights in {config.dtype}{codes}{runtime}, {plan.tokens:,} tokens, "
        f"{plan.needed / gib:.2f} of {plan.budget / gib:.2f} GiB on {device} ({stages}), "
        f"{plan.host / gib:.2f} GiB of weights on the host, {plan.chunk_size:,} queries at once"
    )
    check_plan(plan, spec, config, device)
    limit_device(config, device)
    return replace(config, memory=plan.mode, chunk_size=plan.chunk_size)
