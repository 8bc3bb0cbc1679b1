"""The verdict of `ushape train --overfit N`: can the network memorise a few assets at all?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ultrashape_cli.config.models import model_settings
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.monitoring.events import MetricsReader

NEAR_ZERO = 0.1
"""Share of the loss of predicting nothing that counts as memorised."""


TOKENS_SHARE = 8
"""An eighth of the tokens shows the same and takes minutes on a CPU with the tiny model."""


def overfit_settings(model: str | None, assets: int | None) -> list[str]:
    """Returns the `--set` texts of the check: the same inputs every time, and fewer tokens."""
    if not assets:
        return []
    plain = TrainConfig()
    tokens = model_settings(model or plain.model).get("train.num_latents", plain.num_latents)
    return [
        "train.condition_dropout=0",
        "train.latent_variants=1",
        f"train.num_latents={tokens // TOKENS_SHARE}",
    ]


class Verdict(NamedTuple):
    """What the loss says."""

    passed: bool
    text: str
    loss: float | None = None
    """Mean over the last tenth of the run; None where it was no finite number."""
    share: float | None = None
    """Of the loss of predicting nothing."""


def judge(metrics: Path) -> Verdict:
    """Compares the loss over the last tenth of a run with that of predicting nothing.

    Raises:
        TrainingError: The run has no logged steps.
    """
    lines = [line for line in MetricsReader(metrics).read_new() if "target_power" in line]
    if not lines:
        raise TrainingError(
            f"`{metrics}` has no steps to judge",
            hint="repeat the command with more --steps, or --set train.log_every_steps=1",
        )
    tail = lines[-max(1, len(lines) // 10) :]
    if any(line["loss"] is None or line["target_power"] is None for line in tail):
        return Verdict(False, "overfit check failed: the loss is no finite number")
    loss = sum(line["loss"] for line in tail) / len(tail)
    power = sum(line["target_power"] for line in tail) / len(tail)
    share = loss / power
    word = "passed" if share <= NEAR_ZERO else "failed"
    text = (
        f"overfit check {word}: loss {loss:.4f} is {share:.1%} of predicting nothing "
        f"({power:.4f}); {NEAR_ZERO:.0%} or less counts as memorised"
    )
    return Verdict(share <= NEAR_ZERO, text, loss, share)
