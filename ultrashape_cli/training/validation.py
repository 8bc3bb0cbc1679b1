"""Validation losses that can be compared between steps: fixed items, fixed noise, fixed t."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from ultrashape_cli.data.dataset import Item, to_device
from ultrashape_cli.devices import autocast
from ultrashape_cli.training.objectives import FlowObjective, VAEObjective

NUM_TIMES = 8
"""Equidistant timesteps, each the middle of its eighth of [0, 1]."""


def make_validation(
    objective: FlowObjective | VAEObjective,
    items: Callable[[], Iterable[Item]],
    *,
    wrap: Callable[[nn.Module], nn.Module],
    device: torch.device,
    dtype: str,
) -> Callable[[nn.Module], dict[str, float]]:
    """Returns a function from the network to its validation metrics.

    Args:
        objective: The training loss; its draws depend on the item's counter only.
        items: The fixed validation microbatches.
        wrap: From the saved network to what the objective calls.
        device: Where to compute.
        dtype: Autocast policy.
    """

    @torch.no_grad()
    def validate(net: nn.Module) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for batch in items():
            placed = to_device(batch, device)
            with autocast(device, dtype):
                if isinstance(objective, FlowObjective):
                    for index in range(NUM_TIMES):
                        t = torch.full((len(batch["uid"]),), (index + 0.5) / NUM_TIMES)
                        loss = objective(wrap(net), placed, t).per_sample.mean()
                        sums.setdefault(f"val_loss_t{index}", []).append(float(loss))
                else:
                    losses = objective(wrap(net), placed)
                    sums.setdefault("val_loss_0", []).append(float(losses.per_sample.mean()))
                    for name, value in losses.parts.items():
                        sums.setdefault(f"val_{name}", []).append(float(value))
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        bins = [value for name, value in means.items() if name.startswith("val_loss_")]
        return {"val_loss": sum(bins) / len(bins), **means} if bins else {}

    return validate
