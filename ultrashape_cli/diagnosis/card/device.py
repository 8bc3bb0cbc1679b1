"""What the device is, and how fast it multiplies and copies."""

from __future__ import annotations

import os
import platform
import re
from typing import Any

import torch

from ultrashape_cli import __version__
from ultrashape_cli.config.profiles import PROFILES
from ultrashape_cli.devices import choose_device
from ultrashape_cli.diagnosis.card.context import Context
from ultrashape_cli.diagnosis.gpu import read_driver
from ultrashape_cli.errors import DependencyError


def identify(device: str) -> dict[str, Any]:
    """Returns what tells this machine from others: `device` as chosen, name, memory, versions.

    Raises:
        DependencyError: There is a card, none was ruled out, and torch cannot use it.
    """
    driver = read_driver()
    if device == "auto" and driver and not torch.cuda.is_available():
        raise DependencyError(
            "there is an NVIDIA driver, but torch cannot use the card",
            hint="`ushape doctor` says why; --set device=cpu leaves the card out",
        )
    chosen = choose_device(device)
    found: dict[str, Any] = {
        "version": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "driver": driver["version"] if driver else None,
        "cores": os.cpu_count(),
    }
    if chosen.type != "cuda":
        return {**found, "device": "cpu", "name": f"CPU ({platform.machine()})", "gib": None}
    properties = torch.cuda.get_device_properties(chosen)
    return {
        **found,
        "device": "cuda",
        "name": properties.name,
        "capability": f"sm_{properties.major}{properties.minor}",
        "gib": round(properties.total_memory / 2**30, 2),
        "free_gib": round(torch.cuda.mem_get_info(chosen)[0] / 2**30, 2),
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def datasheet(profile: str, device_name: str) -> float:
    """Returns the dense bf16 peak in TFLOP/s of a card that a profile names, or 0.

    An unknown card takes the profile of one with as much memory, whose peak says nothing of it.
    """
    row = PROFILES[profile]
    named = any(re.search(rf"\b{part}\b", device_name) for part in row.match)
    return row.peak_bf16_tflops if named else 0.0


def measure_products(context: Context) -> dict[str, Any]:
    """Returns the TFLOP/s of products: of square ones, and of a feed-forward layer's shape."""
    width, tokens = context.spec.dit.width, context.sizes.train_tokens
    shapes = [(side, side, side) for side in context.sizes.product_sides]
    found = {}
    for rows, inner, columns in (*shapes, (tokens, width, 4 * width)):
        a = torch.ones(rows, inner, device=context.device, dtype=context.half)
        b = torch.ones(inner, columns, device=context.device, dtype=context.half)
        # Ones draw less power than numbers do, and a card at its limit would slow down.
        a.uniform_(-1, 1)
        b.uniform_(-1, 1)
        out = torch.empty(rows, columns, device=context.device, dtype=context.half)
        seconds = context.time(lambda: torch.mm(a, b, out=out))  # noqa: B023
        found[f"{rows}x{inner}x{columns}"] = 2 * rows * inner * columns / seconds / 1e12
    name = torch.cuda.get_device_name(context.device) if context.cuda else ""
    return {
        "tflops": max(found.values()),
        "by_shape": found,
        "datasheet_tflops": datasheet(context.settings.profile, name) or None,
    }


def measure_bandwidth(context: Context) -> dict[str, Any]:
    """Returns GB/s: of the device's memory (read and written), and to and from the host."""
    size = context.sizes.copied_bytes
    source = torch.zeros(size, dtype=torch.uint8, device=context.device)
    target = torch.empty_like(source)
    found = {"memory": 2 * size / context.time(lambda: target.copy_(source)) / 1e9}
    if context.cuda:
        size = min(size, 2**28)
        pinned = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        plain = torch.zeros(size, dtype=torch.uint8)
        part = source[:size]
        ways = {
            "to_device": lambda: part.copy_(pinned, non_blocking=True),
            "from_device": lambda: pinned.copy_(part, non_blocking=True),
            "from_device_unpinned": lambda: plain.copy_(part),
        }
        found |= {name: size / context.time(way) / 1e9 for name, way in ways.items()}
    return {"gb_per_s": found}
