"""Hardware profiles: what a card has, and the training defaults that fit it."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ultrashape_cli.errors import ConfigError

if TYPE_CHECKING:  # every --help reads this module
    from ultrashape_cli.config.choices import Attention, Checkpointing, DtypePolicy, Strategy


STRATEGY_SETTINGS: dict[str, dict[str, Any]] = {"lora": {"train.learning_rate": 1e-4}}
"""Config keys that a strategy sets."""
OBJECTIVE_SETTINGS: dict[str, dict[str, Any]] = {
    # The network below adapters is the teacher, at no memory. Averages make the steps of a student
    # whole: its last weights leave holes in meshes (FlashVDM, 2025).
    "distill": {
        "train.strategy": "lora",
        "train.lora_rank": 64,
        "train.ema_decay": 0.999,
        "train.warmup_steps": 100,
        "train.steps": 3000,
    },
    # The network below adapters is the reference, at no memory.
    "dpo": {"train.strategy": "lora", "train.warmup_steps": 50, "train.steps": 1000},
    "grpo": {"train.strategy": "lora", "train.warmup_steps": 10, "train.steps": 500},
}
"""Config keys that an objective sets."""
REWARD_RATES = {"lora": 1e-5}
"""Learning rate of `dpo` and `grpo` by strategy, whatever the model's; 1e-6 of all others."""


def objective_rate(objective: str, strategy: str) -> dict[str, Any]:
    """Returns the learning rate of an objective that takes smaller steps than plain training."""
    if objective not in ("dpo", "grpo"):
        return {}
    return {"train.learning_rate": REWARD_RATES.get(strategy, 1e-6)}


OFFLOAD_HOST_GIB = 59.6
"""Host memory that fp32 weights, gradients and Adam states of the full model need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareProfile:
    """One card and the defaults it implies."""

    name: str
    memory_gib: float
    """Usable device memory (vendor figure less ECC); 0 where host memory counts."""
    peak_bf16_tflops: float
    """Dense bf16 peak by the vendor's datasheet; 0 where unknown."""
    bandwidth_gbs: float = 0.0
    """GB/s of the memory by the datasheet."""
    product_share: float = 0.0
    """Share of the peak that large products reach."""
    attention_share: float = 0.0
    """Share of the peak that attention reaches, forward and backward."""
    dtype: DtypePolicy
    strategy: Strategy
    activation_checkpointing: Checkpointing
    microbatch: int
    accumulation: int
    num_workers: int
    attention: Attention = "sdpa"
    """`auto` where back ends differ by more than noise."""
    little_host_memory: Strategy | None = None
    """Strategy where the host has less than `OFFLOAD_HOST_GIB`."""
    match: tuple[str, ...] = ()
    """Words of the device name that select this profile, most specific first."""

    def settings(self, host_gib: float = 0.0) -> dict[str, Any]:
        """Returns the config keys this profile sets, beside a host's memory (0: this host's)."""
        return {
            "train.dtype": self.dtype,
            "train.strategy": self.choose_strategy(host_gib),
            "train.activation_checkpointing": self.activation_checkpointing,
            "train.microbatch": self.microbatch,
            "train.accumulation": self.accumulation,
            "train.num_workers": self.num_workers,
            "train.attention": self.attention,
            "refine.dtype": self.dtype,
            "refine.attention": self.attention,
        }

    def choose_strategy(self, host_gib: float = 0.0) -> Strategy:
        """Returns the strategy for this card beside a host's memory (0: this host's)."""
        if self.little_host_memory and (host_gib or host_memory_gib()) < OFFLOAD_HOST_GIB:
            return self.little_host_memory
        return self.strategy

    def fits(self, memory_gib: float) -> bool:
        """Says whether a card with this much memory has what the profile assumes."""
        return 0 < self.memory_gib <= memory_gib * 1.02


def _gpu(
    name: str,
    memory: float,
    tflops: float,
    speed: tuple[float, float, float],
    strategy: Strategy,
    workers: int,
    *match: str,
    checkpointing: Checkpointing = "all",
    attention: Attention = "sdpa",
    little_host_memory: Strategy | None = None,
) -> HardwareProfile:
    return HardwareProfile(
        name=name,
        memory_gib=memory,
        peak_bf16_tflops=tflops,
        bandwidth_gbs=speed[0],
        product_share=speed[1],
        attention_share=speed[2],
        dtype="bf16",
        strategy=strategy,
        activation_checkpointing=checkpointing,
        microbatch=1,
        accumulation=4,
        num_workers=workers,
        attention=attention,
        little_host_memory=little_host_memory,
        match=match,
    )


# Peaks and bandwidths are the vendor's. The shares are assumed, until `ushape doctor --card` has
# measured a card: products from what others report of cuBLAS (at best 780 of 989 TFLOP/s on an
# H100, less where the power limit holds the clock down), attention from the published curves
# of FlashAttention-2 and cuDNN for heads of 128. A run corrects them by its first steps.
PROFILES: dict[str, HardwareProfile] = {
    profile.name: profile
    for profile in (
        HardwareProfile(
            name="cpu",
            memory_gib=0.0,
            peak_bf16_tflops=0.0,
            dtype="fp32",
            strategy="full",
            activation_checkpointing="none",
            microbatch=1,
            accumulation=1,
            num_workers=1,
        ),
        # name, GiB, TFLOP/s, (GB/s, shares of products and attention), strategy, workers, names
        _gpu("rtx5070ti-16", 15.5, 88.0, (896, 0.85, 0.70), "lora", 4, "5070 Ti"),
        _gpu(
            *("rtx4090", 23.5, 165.0, (1008, 0.85, 0.75), "full-offload", 6, "4090"),
            little_host_memory="experts-frozen",
        ),
        _gpu(
            *("a5000", 23.5, 111.0, (768, 0.70, 0.55), "full-offload", 4, "A5000"),
            little_host_memory="experts-frozen",
        ),
        _gpu("a40", 44.9, 149.7, (696, 0.62, 0.50), "full-8bit", 6, "A40"),
        _gpu("a100", 79.0, 312.0, (2039, 0.80, 0.60), "full", 8, "A100"),
        # On Hopper cuDNN's attention is about twice as fast as FlashAttention-2.
        _gpu(
            *("h100", 79.0, 989.0, (3350, 0.65, 0.55), "full", 12, "H100"),
            checkpointing="auto",
            attention="auto",
        ),
        _gpu(
            *("h200", 139.0, 989.0, (4800, 0.65, 0.55), "full", 12, "H200"),
            checkpointing="auto",
            attention="auto",
        ),
    )
}


def host_memory_gib() -> float:
    """Returns the memory of this host."""
    import psutil

    return psutil.virtual_memory().total / 2**30


def get_profile(name: str) -> HardwareProfile:
    """Returns the profile called `name`, or detects one for `auto`.

    Raises:
        ConfigError: No such profile; the message offers close matches.
    """
    if name == "auto":
        return detect_profile()
    if name in PROFILES:
        return PROFILES[name]
    close = difflib.get_close_matches(name.lower(), PROFILES, n=2, cutoff=0.5)
    raise ConfigError(
        f"no profile `{name}`" + (f" (did you mean `{'` or `'.join(close)}`?)" if close else ""),
        hint=f"profiles: auto {' '.join(PROFILES)}",
    )


def detect_profile() -> HardwareProfile:
    """Returns the profile of the first NVIDIA GPU, or `cpu` where there is none.

    An unknown GPU, or a smaller variant of a known one, takes the largest profile that fits its
    memory.
    """
    gpu = _first_gpu()
    if gpu is None:
        return PROFILES["cpu"]
    device_name, memory_gib = gpu
    for profile in PROFILES.values():
        # Whole words: an A4000 is no A40. Some boards do not tell their memory.
        named = any(re.search(rf"\b{part}\b", device_name) for part in profile.match)
        if named and (memory_gib == 0 or profile.fits(memory_gib)):
            return profile
    fitting = [p for p in PROFILES.values() if p.fits(memory_gib)]
    return max(fitting, key=lambda p: p.memory_gib, default=PROFILES["rtx5070ti-16"])


def _first_gpu() -> tuple[str, float] | None:
    import subprocess

    # nvidia-smi instead of torch keeps `--show-config` free of torch.
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        return None
    if visible.isdigit():
        command += ["-i", visible]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    line = run.stdout.strip().splitlines()[:1]
    if run.returncode != 0 or not line or "," not in line[0]:
        return None
    name, memory = line[0].rsplit(",", 1)
    # Boards that share the host's memory answer "[N/A]".
    return name.strip(), float(memory) / 1024 if memory.strip().isdigit() else 0.0
