"""The training objective: rectified flow from noise (t = 0) to data (t = 1).

Legend: B batch, M latents, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

TIMESTEP_DISTRIBUTIONS = ("uniform", "logit_normal")


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return standard normal noise from a CPU generator, the same on every device."""
    return torch.randn(tuple(shape), generator=generator)


def draw_timesteps(
    batch: int,
    generator: torch.Generator,
    *,
    distribution: str = "uniform",
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
) -> Tensor:  # [B] in [0, 1]
    """Draw one t per sample.

    Args:
        batch: How many.
        generator: A CPU generator.
        distribution: "uniform", or "logit_normal": the sigmoid of a normal variable.
        mean: Of that normal variable.
        std: Of that normal variable.
        shift: Above 1 moves logit-normal times towards the data end.
    """
    if distribution == "uniform":
        return torch.rand(batch, generator=generator)
    if distribution == "logit_normal":
        t = torch.sigmoid(mean + std * torch.randn(batch, generator=generator))
        root = shift**0.5
        return root * t / (1 + (root - 1) * t)
    raise ValueError(
        f"unknown timestep distribution {distribution!r}; "
        f"known: {', '.join(TIMESTEP_DISTRIBUTIONS)}"
    )


def interpolate(
    data: Tensor,  # [B, M, C]
    noise: Tensor,  # [B, M, C]
    t: Tensor,  # [B]
) -> Tensor:  # [B, M, C]
    """Return the point t * data + (1 - t) * noise of the straight path."""
    t = t.to(data).view(-1, *[1] * (data.ndim - 1))
    return t * data + (1 - t) * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """Return data - noise, the velocity along the path."""
    return data - noise


def flow_loss(velocity: Tensor, target: Tensor) -> Tensor:  # two [B, M, C] -> [B]
    """Return the mean squared error of each sample, in fp32."""
    return (velocity.float() - target.float()).square().flatten(1).mean(1)
