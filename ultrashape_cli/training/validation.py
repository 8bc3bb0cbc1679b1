"""Validation losses that can be compared between steps: fixed items, fixed noise, fixed t."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item, to_device
from ultrashape_cli.devices import autocast
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.training.mesh_validation import SCORES, MeshValidation
from ultrashape_cli.training.objectives.flow import FlowObjective
from ultrashape_cli.training.objectives.generated import ReferencedObjective
from ultrashape_cli.training.objectives.vae import VAEObjective

Averaged = Callable[[], AbstractContextManager[None]]
"""Puts the averaged weights in the network's place while it is open."""


class Validation(NamedTuple):
    """What a validation found."""

    values: dict[str, float]
    pictures: dict[str, Path]


class Validate(Protocol):
    """The validation of a run; every process must call it."""

    def __call__(
        self, net: nn.Module, step: int, last: bool, averaged: Averaged | None = None
    ) -> Validation:
        """Returns metrics and pictures of a network in eval mode."""


NUM_TIMES = 8
"""Equidistant timesteps, each the middle of its eighth of [0, 1]."""


def make_validation(
    objective: FlowObjective | VAEObjective,
    items: Callable[[], Iterable[Item]],
    *,
    wrap: Callable[[nn.Module], nn.Module],
    device: torch.device,
    dtype: str,
    meshes: MeshValidation | None = None,
    mesh_every_steps: int = 0,
) -> Validate:
    """Returns the validation of a run.

    Args:
        objective: The training loss; its draws depend on the item's counter only.
        items: The fixed validation microbatches.
        wrap: From the saved network to what the objective calls.
        device: Where to compute.
        dtype: Autocast policy.
        meshes: Refines held-out assets.
        mesh_every_steps: Steps between those; the last step always does.
    """

    @torch.no_grad()
    def losses_of(net: nn.Module) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for batch in items():
            placed = to_device(batch, device)
            with autocast(device, dtype):
                if isinstance(objective, FlowObjective):
                    encoded = objective.encode(placed, noisy=False)
                    for index in range(NUM_TIMES):
                        t = torch.full((len(batch["uid"]),), (index + 0.5) / NUM_TIMES)
                        loss = objective.losses(wrap(net), encoded, t).per_sample.mean()
                        sums.setdefault(f"val_loss_t{index}", []).append(float(loss))
                    if isinstance(objective, ReferencedObjective):
                        middle = torch.full((len(batch["uid"]),), 0.5, device=device)
                        moved = objective.drift(wrap(net), encoded, middle)
                        if moved is not None:
                            sums.setdefault("val_drift", []).append(moved)
                else:
                    losses = objective(wrap(net), placed)
                    sums.setdefault("val_loss_0", []).append(float(losses.per_sample.mean()))
                    for name, value in losses.parts.items():
                        sums.setdefault(f"val_{name}", []).append(float(value))
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        bins = [value for name, value in means.items() if name.startswith("val_loss_")]
        return {"val_loss": sum(bins) / len(bins), **means} if bins else {}

    def validate(
        net: nn.Module, step: int, last: bool, averaged: Averaged | None = None
    ) -> Validation:
        values = losses_of(net)
        if meshes is None or not (last or (mesh_every_steps and step % mesh_every_steps == 0)):
            return Validation(values, {})
        scores, pictures = meshes(net, step, averaged)
        return Validation({**values, **scores}, pictures)

    return validate


def check_best_metric(settings: TrainConfig) -> None:
    """Raises ConfigError unless the run will have the metric that decides its best checkpoint."""
    name = settings.best_metric
    if score_sign(name) is None:
        known = ["val_loss", *(f"val_{score}" for score in SCORES)]
        raise ConfigError(
            f"no metric `{name}` to choose checkpoints by", hint=f"metrics: {', '.join(known)}"
        )
    if name.startswith("val_ema_") and not settings.ema_decay:
        raise ConfigError(f"`{name}` needs averaged weights", hint="--set train.ema_decay=0.999")
    if name != "val_loss" and not settings.validate_meshes:
        raise ConfigError(f"`{name}` needs refined meshes", hint="--set train.validate_meshes=4")


def score_sign(name: str) -> float | None:
    """Returns 1 where a lower value of a validation metric is better, -1 for a higher one.

    None means that there is no such metric.
    """
    score = name.removeprefix("val_").removeprefix("ema_")
    if name == "val_loss" or (name.startswith("val_") and score.startswith("chamfer_l")):
        return 1.0
    return -1.0 if name.startswith("val_") and score in SCORES else None
