"""What a step of each optimizer costs per weight, on this machine's device.

    python examples/bench/optimizers.py [--weights 200000000] [--device cuda]

Beside torch's own fused AdamW: 8-bit AdamW as it stands and compiled, and AdamW in host memory with
the sums of four microbatches. Times are medians of three steps after a first one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ultrashape_cli.training.memory.adamw8bit import AdamW8bit
from ultrashape_cli.training.memory.offload import OffloadedAdamW
from ultrashape_cli.training.memory.strategies import ADAM_BETAS, ADAM_EPS

FULL_MODEL = 3_050_758_720
"""Weights of the released DiT."""
OPTIONS = {"lr": 1e-5, "betas": ADAM_BETAS, "eps": ADAM_EPS}


def weights(count: int, device: str, dtype: torch.dtype) -> list[nn.Parameter]:
    """Returns matrices of the DiT's size, with gradients."""
    side = 2048
    made = []
    for _ in range(max(count // (side * 4 * side), 1)):
        parameter = nn.Parameter(torch.randn(side, 4 * side, device=device, dtype=dtype))
        parameter.grad = torch.randn_like(parameter)
        made.append(parameter)
    return made


def seconds(run: Callable[[], None], device: str) -> float:
    """Returns the median duration of three runs after a first one."""
    found = []
    for _ in range(4):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def offloaded(count: int, device: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Returns adding the gradients of a step's four microbatches, and the step itself."""
    # Gradients of a card arrive widened.
    made = weights(count, device, torch.bfloat16 if device == "cuda" else torch.float32)
    gradients = [parameter.grad for parameter in made]
    masters = {parameter: parameter.detach().float() for parameter in made}
    optimizer = OffloadedAdamW([{"params": made}], masters, **OPTIONS)
    optimizer.gradient_scale = 0.5

    def add() -> None:
        optimizer.zero_grad()
        for _ in range(4):
            for parameter, gradient in zip(made, gradients, strict=True):
                # As autograd does: the hook that collects takes it away.
                parameter.grad = gradient
                for hook in parameter._post_accumulate_grad_hooks.values():
                    hook(parameter)
        optimizer.wait()

    def step() -> None:
        torch.nn.utils.get_total_norm([master.grad for master in optimizer.masters])
        optimizer.step()

    return add, step


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=int, default=200_000_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    table = Table("optimizer", "ns per weight", "s at 3.05 B weights")
    sizes = options.weights, options.device

    def show(name: str, run: Callable[[], None]) -> None:
        each = seconds(run, options.device) / options.weights
        table.add_row(name, f"{1e9 * each:.2f}", f"{each * FULL_MODEL:.2f}")

    for dtype in (torch.float32, torch.bfloat16):
        short = str(dtype).removeprefix("torch.")
        made = weights(*sizes, dtype)
        if dtype == torch.float32:
            show(
                f"torch AdamW, fused, {short}", torch.optim.AdamW(made, fused=True, **OPTIONS).step
            )
        for compiled in (False, True):
            name = f"8-bit AdamW, {short}, {'one pass' if compiled else 'as it stands'}"
            show(name, AdamW8bit(made, compiled=compiled, **OPTIONS).step)
    add, step = offloaded(*sizes)
    show("host memory: sums of four microbatches (beside the backward)", add)
    show("host memory: norm, step and rounding", step)
    console = Console()
    console.print(
        f"{options.weights:,} weights on {options.device}, {torch.get_num_threads()} threads"
    )
    console.print(table)


if __name__ == "__main__":
    main()
