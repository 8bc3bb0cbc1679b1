"""The memory a run needs, before anything is loaded: real parameter counts, estimated activations.

Activation figures are fitted to the reference configuration (8,192 tokens, 21 blocks: 4.8 GiB
with per-block checkpointing, 31.5 GiB without) and are estimates, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from ultrashape_cli.config.profiles import HardwareProfile
from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.training.objectives import trainable_parameters

_SAVED_PER_BLOCK = 24
"""Saved activations of one block, in units of [tokens, width] fp32."""
_CHECKPOINT_PEAK = 60
"""Largest recomputed block, in the same units."""
_CONTEXT_GIB = 0.8
"""CUDA context and library workspaces."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """GiB a training process needs, by part."""

    parts: dict[str, float]
    trained: int
    total: int

    @property
    def gib(self) -> float:
        """Sum of all parts."""
        return sum(self.parts.values())


def plan_memory(config: Config) -> MemoryPlan:
    """Returns the plan of a run, from networks built without storage."""
    settings = config.train
    networks = build(model_spec(settings.model))
    assert networks.vae is not None
    assert networks.dit is not None
    assert networks.conditioner is not None
    net = networks.dit if settings.stage == "dit" else networks.vae
    trained = sum(p.numel() for p in trainable_parameters(net, settings.strategy))
    total = sum(p.numel() for p in net.parameters())
    frozen = 0
    if settings.stage == "dit":
        frozen = sum(p.numel() for p in networks.conditioner.parameters())
        frozen += sum(p.numel() for p in networks.vae.encoder.parameters())
    width, depth = networks.dit.params.width, networks.dit.params.depth
    blocks = _SAVED_PER_BLOCK * depth
    if settings.activation_checkpointing:
        blocks = depth + _CHECKPOINT_PEAK
    tokens = settings.num_latents * settings.microbatch
    half = 2 if settings.dtype == "bf16" else 4
    parts = {
        "weights": total * 4,
        "gradients": trained * 4,
        "optimizer": trained * 8,
        "frozen networks": frozen * half,
        "activations (estimate)": tokens * width * blocks * 4,
    }
    return MemoryPlan(
        {**{k: v / 2**30 for k, v in parts.items()}, "context (estimate)": _CONTEXT_GIB},
        trained,
        total,
    )


def check_memory(plan: MemoryPlan, profile: HardwareProfile) -> None:
    """Raises ConfigError where the plan does not fit the profile's card."""
    if profile.memory_gib and plan.gib > profile.memory_gib:
        raise ConfigError(
            f"profile `{profile.name}` has {profile.memory_gib:g} GiB, "
            f"this run needs about {plan.gib:.0f} GiB",
            hint="--set train.strategy=experts-frozen, a lower train.num_latents, "
            "or a larger --profile",
        )
