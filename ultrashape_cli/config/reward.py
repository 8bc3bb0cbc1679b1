"""Settings of the objectives that learn from rewards; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """What is learned of generations that are better and worse than others."""

    margin: float = 1.0
    """How far the best generation must be above the worst to make a pair, in standard deviations of
    a group, the mean over all groups (`dpo`)."""
    beta: float = 500.0
    """How hard preferences push away from the reference; such that the metric `logit` is 0.1 to 1
    in the first hundred steps (`dpo`)."""
    winner_loss: float = 0.1
    """Weight of the plain loss on the winner beside the preference (`dpo`)."""
    held_out: tuple[str, ...] = ("f_score", "normals", "silhouette")
    """Rewards that validation watches: those that `train.rewards` does not ask for may not fall."""
    max_drop: float = 0.02
    """Share of what the weights had at the start by which a held-out reward may fall before the run
    stops; 0 only watches."""
