"""Seconds of a training step before one was taken, from what it computes and moves.

Kernels of a device follow one another, so the times of products, attention and everything else add
up; launching them from Python runs beside, and only counts where it takes longer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import torch

from ultrashape_cli.config.profiles import HardwareProfile
from ultrashape_cli.config.schema import Config
from ultrashape_cli.inference.decode import expected_queries
from ultrashape_cli.models.flops import vae_flops
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.training.memory.footprint import Footprint
from ultrashape_cli.training.memory.offload import BYTES_PER_STEP

BANDWIDTH_SHARE = 0.85
"""Of the memory's peak that elementwise kernels reach (assumed)."""
LAUNCH_S = 1e-5
"""From one kernel's launch to the next in eager Python (assumed)."""
HOST_BANDWIDTH = 40e9
"""Bytes a second that eight threads of a rented host read and write (assumed)."""
CPU_SHARE = 0.3
"""Of the speed of a large product that a step reaches on a CPU (assumed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one step, by what they are spent on."""

    products: float = 0.0
    attention: float = 0.0
    other: float = 0.0
    """Kernels that are limited by the memory."""
    launching: float = 0.0
    """Waiting for the next kernel to be launched."""
    update: float = 0.0
    host: float = 0.0
    """The offloaded optimizer, beside what the backward pass hides."""
    decoding: float = 0.0
    """Fields of what `grpo` samples, as of a ball; judging the meshes is not in it."""

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(seconds for _, seconds in self.parts())

    def parts(self) -> list[tuple[str, float]]:
        """Returns those that take time, by name."""
        found = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, seconds) for name, seconds in found if seconds]


def estimate_step(config: Config, footprint: Footprint, profile: HardwareProfile) -> StepTime:
    """Returns the estimated time of a step of one process on a profile's card."""
    count = config.train.accumulation
    work = footprint.work.times(count)
    decoded = _decoding(config) * count
    if not profile.memory_gib:
        rate = _cpu_rate() * CPU_SHARE
        return StepTime(products=work.flops / rate, decoding=decoded / rate)
    peak, bandwidth = profile.peak_bf16_tflops * 1e12, profile.bandwidth_gbs * 1e9
    products = work.products / (peak * profile.product_share)
    attention = work.attention / (peak * profile.attention_share)
    other = work.moved / (bandwidth * BANDWIDTH_SHARE)
    read = footprint.gradients + footprint.optimizer + footprint.trained_bytes
    return StepTime(
        products=products,
        attention=attention,
        other=other,
        launching=max(work.launches * LAUNCH_S - products - attention - other, 0.0),
        # The norm reads the gradients once more.
        update=(2 * read + footprint.gradients) / (bandwidth * BANDWIDTH_SHARE),
        host=footprint.trained * BYTES_PER_STEP / HOST_BANDWIDTH if footprint.offloaded else 0.0,
        decoding=decoded / (peak * profile.product_share),
    )


def _decoding(config: Config) -> int:
    """Returns the FLOPs of decoding what is sampled for a microbatch."""
    settings, reward = config.train, config.reward
    if settings.objective != "grpo":
        return 0
    params = model_spec(settings.model).vae
    queries = expected_queries(reward.resolution, params.truncation)
    one = vae_flops(params, 0, settings.num_latents, queries)
    return settings.microbatch * reward.group * one


def _cpu_rate() -> float:
    """Returns the FLOP/s of a product of this host's CPU."""
    side = 512
    a, b = torch.ones(side, side), torch.ones(side, side)
    a @ b
    started = time.perf_counter()
    for _ in range(3):
        a @ b
    return 3 * 2 * side**3 / (time.perf_counter() - started)
