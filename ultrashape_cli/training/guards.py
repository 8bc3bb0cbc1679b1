"""Steps that must not be taken: non-finite losses and gradients, and spikes when asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ultrashape_cli.data.dataset import Item
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.files import write_atomic
from ultrashape_cli.monitoring.events import MetricsReader

_SPIKE_AFTER = 20
"""Steps before the running mean of the gradient norm means something."""
_SMOOTHING = 0.05


@dataclass(slots=True)
class StepGuard:
    """Decides whether a step is taken, from numbers all processes agree on.

    Args:
        max_bad_steps: Skipped steps in a row that stop the run.
        spike_factor: Norms above so many running means are skipped too; 0 allows any.
    """

    max_bad_steps: int
    spike_factor: float
    skipped: int = field(default=0, init=False)
    in_a_row: int = field(default=0, init=False)
    norm_mean: float = field(default=0.0, init=False)
    norm_count: int = field(default=0, init=False)

    def allows(self, loss: float, norm: float) -> bool:
        """Says whether to take the step, and keeps count."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        spike = (
            self.spike_factor > 0
            and self.norm_count >= _SPIKE_AFTER
            and norm > self.spike_factor * self.norm_mean
        )
        if not finite or spike:
            self.skipped += 1
            self.in_a_row += 1
            return False
        self.in_a_row = 0
        weight = max(_SMOOTHING, 1 / (self.norm_count + 1))
        self.norm_mean += weight * (norm - self.norm_mean)
        self.norm_count += 1
        return True

    def check(self, step: int, loss: float, norm: float, saved: Path) -> None:
        """Raises TrainingError once too many steps in a row were skipped."""
        if self.in_a_row >= self.max_bad_steps:
            raise TrainingError(
                f"loss {loss:g}, gradient norm {norm:g} at step {step}: {self.in_a_row} steps in "
                f"a row were skipped; the last batch is in `{saved}`",
                hint="repeat the command with a lower --learning-rate, or look at that batch",
            )

    def check_end(self, step: int) -> None:
        """Raises TrainingError where a run ends and none of its steps was taken."""
        if step and self.skipped >= step:
            raise TrainingError(
                f"none of the {step} steps had a finite loss and gradient: nothing was learned",
                hint="repeat the command with a lower --learning-rate, or with --force and "
                "--set train.dtype=fp32",
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts, for a checkpoint."""
        return {name: getattr(self, name) for name in ("skipped", "norm_mean", "norm_count")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)


HELD_OUT = "val_held_"
"""How validation's held-out rewards begin."""
_SMALLEST_BASE = 0.1
"""Of which a drop is a share where the start has less than that, or nothing."""


def fallen_reward(values: Mapping[str, float], step: int, max_drop: float) -> TrainingError | None:
    """Returns the error of a held-out reward that fell too far below the start's, if one did.

    Args:
        values: Of a validation.
        step: Of the run.
        max_drop: Share of the start's value that may be lost; 0 allows all.
    """
    if not max_drop:
        return None
    lost = {}
    for name, value in values.items():
        base = values.get(name.replace(HELD_OUT, "val_base_held_"))
        if name.startswith(HELD_OUT) and base is not None:
            drop = (base - value) / max(abs(base), _SMALLEST_BASE)
            lost[drop] = f"`{name.removeprefix(HELD_OUT)}` from {base:.4f} to {value:.4f}"
    worst = max(lost, default=0.0)
    if worst <= max_drop:
        return None
    return TrainingError(
        f"the held-out reward {lost[worst]} has fallen by {100 * worst:.1f} %, more than "
        f"{100 * max_drop:g} %, at step {step}: what is asked for is gained at its cost",
        hint="use an earlier checkpoint, or train anew with a lower --learning-rate, or with "
        "this reward among train.rewards; to go on all the same, --set reward.max_drop=0",
    )


def fallen_before(metrics: Path, max_drop: float) -> TrainingError | None:
    """Returns the error of the last validation that a run has recorded, as `fallen_reward` does.

    A run that was stopped stays so when its command is repeated, by a queue for instance.
    """
    last: dict[str, Any] = {}
    for line in MetricsReader(metrics).read_new():
        if any(name.startswith(HELD_OUT) for name in line):
            last = line
    values = {name: value for name, value in last.items() if isinstance(value, int | float)}
    return fallen_reward(values, int(values.get("step", 0)), max_drop)


def save_batch(path: Path, batches: list[Item], *, step: int) -> None:
    """Writes the tensors of a step's microbatches, their asset ids in the metadata."""
    tensors = {
        f"{index}.{name}": value.cpu().contiguous()
        for index, batch in enumerate(batches)
        for name, value in batch.items()
        if isinstance(value, Tensor)
    }
    ids = [uid for batch in batches for uid in batch["uid"]]
    data = save(tensors or {"empty": torch.zeros(1)}, {"step": str(step), "ids": " ".join(ids)})
    write_atomic(path, lambda file: file.write(data))
