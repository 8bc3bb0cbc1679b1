"""What a display needs after a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """The step that was taken and its metrics."""

    step: int
    steps: int
    values: dict[str, float]


def describe(progress: Progress) -> str:
    """Returns one plain line about a step."""
    values: dict[str, Any] = progress.values
    text = (
        f"step {progress.step}/{progress.steps}  loss {values['loss_smooth']:.4f}  "
        f"lr {values['learning_rate']:.2e}  grad {values['grad_norm']:.3f}  "
        f"{values['seconds']:.2f} s/step"
    )
    for name, value in values.items():
        # The loss of a policy gradient is near zero whatever is learned.
        text += f"  {name} {value:.3f}" if name.startswith("reward_") else ""
    return text + (f"  val {values['val_loss']:.4f}" if "val_loss" in values else "")
