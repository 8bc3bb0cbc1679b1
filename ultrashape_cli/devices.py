"""Which device to use, and the one mixed-precision policy of training and inference."""

from __future__ import annotations

import os
import sys

import psutil
import torch
from torch import Tensor

from ultrashape_cli.errors import ConfigError

CONTEXT_BYTES = int(0.8 * 2**30)
"""Driver context and library workspaces of a CUDA process."""
FRAGMENTATION = 0.03
"""Share of a device's memory that the allocator loses."""


def choose_device(name: str) -> torch.device:
    """Returns the device of a setting: `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        ConfigError: It is not available here.
    """
    _configure_allocator()
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, usable in available.items() if usable))
    if not available.get(name.split(":")[0], False):
        usable = " ".join(kind for kind, there in available.items() if there)
        raise ConfigError(
            f"device `{name}` is not available with torch {torch.__version__}",
            hint=f"--device auto, or one of: {usable}",
        )
    return torch.device(name)


def _configure_allocator() -> None:
    """Lets CUDA's allocator grow its segments: lengths that change would leave holes in fixed ones.

    It reads the variable when CUDA starts; that of the user counts.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if sys.platform == "linux" and not any(name in os.environ for name in names):
        new = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 9)
        os.environ[names[0] if new else names[1]] = "expandable_segments:True"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on a device, without waiting for what the device has to do.

    CUDA waits where memory is not pinned and in one piece. torch keeps what it pins, and gives it
    out again only once the copy is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.contiguous().pin_memory()
    return tensor.to(device, non_blocking=True)


def empty_cache(device: torch.device) -> None:
    """Gives back what torch keeps of a device's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronise(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_bytes(device: torch.device) -> int:
    """Returns the bytes of a device that nobody holds, torch's own reserve given back before.

    MPS takes from the memory of the host, and less than all of it.
    """
    empty_cache(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    if device.type == "mps":
        allowed = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(allowed, available))
    return available


def compute_dtype(policy: str) -> torch.dtype:
    """Returns what a dtype policy, `bf16` or `fp32`, computes in."""
    return torch.bfloat16 if policy == "bf16" else torch.float32


def autocast(device: torch.device, dtype: str) -> torch.autocast:
    """Returns the autocast context of a dtype policy: `bf16`, or `fp32` for none.

    The weight cache is off: with activation checkpointing it would keep a copy of all weights.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16", cache_enabled=False)
