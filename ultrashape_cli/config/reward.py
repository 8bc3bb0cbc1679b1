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
    group: int = 8
    """Generations of an asset in one step; `train.microbatch` of them pass at once (`grpo`)."""
    rollout_steps: int = 12
    """Euler steps from start to end, without guidance (`grpo`)."""
    window: int = 4
    """Steps in a row that add noise and are learned from; they shift from group to group (`grpo`).
    """
    noise: float = 0.7
    """How much noise those steps add: a of g = a sqrt((1 - t) / t), of flows that start at the
    coarse mesh of g = a sqrt(1 - t) (`grpo`)."""
    clip: float = 1e-3
    """By how much the ratio of densities may leave 1 before a step gains no more; means over all
    dimensions hardly move, so that usual values would never act (`grpo`)."""
    inner_steps: int = 1
    """Updates on each draw of groups; of the first one the ratio is 1 (`grpo`)."""
    kl: float = 0.0
    """Weight of the divergence from the start; 0.01 once rewards have been seen to rise, at the
    cost of a further pass (`grpo`)."""
    resolution: int = 256
    """Cells along one side of the fields that are decoded to be judged (`grpo`)."""
    held_out: tuple[str, ...] = ("f_score", "normals", "silhouette")
    """Rewards that validation watches: those that `train.rewards` does not ask for may not fall."""
    max_drop: float = 0.02
    """Share of what the weights had at the start by which a held-out reward may fall before the run
    stops; 0 only watches."""
