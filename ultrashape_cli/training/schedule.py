"""The learning-rate multiplier."""

import math

from ultrashape_cli.config.schema import TrainConfig


def warmup_cosine(
    step: int,
    *,
    warmup_steps: int,
    max_steps: int,
    start: float = 1e-6,
    minimum: float = 1e-3,
    maximum: float = 1.0,
) -> float:
    """Return the multiplier of an optimizer step: a linear warm-up, then half a cosine.

    Args:
        step: Optimizer steps done.
        warmup_steps: Steps from `start` to `maximum`.
        max_steps: Step at which `minimum` is reached; it holds afterwards.
        start: Multiplier of step 0.
        minimum: Multiplier at the end.
        maximum: Multiplier after the warm-up.
    """
    if step < warmup_steps:
        return start + (maximum - start) * step / warmup_steps
    span = max_steps - warmup_steps
    progress = min((step - warmup_steps) / span, 1.0) if span > 0 else 1.0
    return minimum + 0.5 * (maximum - minimum) * (1 + math.cos(math.pi * progress))


def learning_rate(config: TrainConfig, step: int, samples_per_step: int) -> float:
    """Returns the rate of a step: warm-up, cosine, scaled with the global batch."""
    multiplier = warmup_cosine(
        step,
        warmup_steps=min(config.warmup_steps, config.steps // 10),
        max_steps=config.steps,
    )
    if config.lr_reference_batch:
        multiplier *= math.sqrt(samples_per_step / config.lr_reference_batch)
    return config.learning_rate * multiplier
