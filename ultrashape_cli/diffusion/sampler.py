"""From noise to latents: schedule, Euler and Heun, classifier-free guidance.

Legend: B batch, M latents, C channels, N steps.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

VelocityFn = Callable[[Tensor, Tensor], Tensor]  # x [B, M, C], t [B] -> velocity [B, M, C]
Callback = Callable[[int, int, Tensor], None]  # step, steps, x after the step

SOLVERS = ("euler", "heun")


def schedule(num_steps: int) -> Tensor:  # [N + 1] fp32
    """Return t from 0 to 1 in `num_steps` values, and a last 1.

    The last step has zero length, as in the reference: `num_steps` values make one effective
    step less, except for a single one.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be positive, got {num_steps}")
    return torch.cat([torch.linspace(0, 1, num_steps), torch.ones(1)])


@torch.no_grad()
def sample(
    velocity_fn: VelocityFn,
    noise: Tensor,  # [B, M, C]
    times: Tensor,  # [N + 1], from `schedule`
    *,
    solver: str = "euler",
    callback: Callback | None = None,
) -> Tensor:  # [B, M, C] fp32
    """Integrate the velocity from the first to the last time, in fp32.

    Args:
        velocity_fn: The velocity at (x, t).
        noise: x at the first time.
        times: Increasing values of t; steps of zero length are skipped.
        solver: "euler", or "heun" with two evaluations per step.
        callback: Called after each step with its number (from 1), their count and x.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    values = times.tolist()
    steps = [(a, b) for a, b in pairwise(values) if b != a]
    x = noise.float()
    for number, (start, end) in enumerate(steps, 1):
        velocity = velocity_fn(x, _times(x, start)).float()
        if solver == "heun":
            ahead = velocity_fn(x + (end - start) * velocity, _times(x, end)).float()
            velocity = 0.5 * (velocity + ahead)
        x = x + (end - start) * velocity
        if callback is not None:
            callback(number, len(steps), x)
    return x


def guided_velocity(
    conditional: VelocityFn,
    unconditional: VelocityFn,
    guidance_scale: float,
) -> VelocityFn:
    """Return the velocity u + scale * (c - u) of classifier-free guidance.

    A negative scale switches guidance off and 1 makes it void: both then evaluate the
    conditional velocity only.
    """
    if guidance_scale < 0 or guidance_scale == 1:
        return conditional

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t).float()
        return without + guidance_scale * (conditional(x, t).float() - without)

    return velocity


def _times(x: Tensor, t: float) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)
