"""From noise to latents: schedule, solvers, classifier-free guidance.

Legend: B batch, M latents, C channels, N steps.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

VelocityFn = Callable[[Tensor, Tensor], Tensor]  # x [B, M, C], t [B] -> velocity [B, M, C]
Callback = Callable[[int, int, Tensor], None]  # step, steps, x after the step

SOLVERS = {"euler": 1, "heun": 2, "midpoint": 2, "ab2": 1, "dpm": 1}
"""Solvers, and their evaluations of the velocity per step."""


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
    hold: Callable[[float, Tensor], Tensor] | None = None,
) -> Tensor:  # [B, M, C] fp32
    """Integrate the velocity from the first to the last time, in fp32.

    "heun" and "midpoint" evaluate the velocity twice per step. "ab2" (Adams-Bashforth) and "dpm"
    evaluate it once and use that of the step before; "dpm" is DPM-Solver++(2M) of Lu et al.,
    2022, for the straight path, and extrapolates the data that the velocity points to.

    Args:
        velocity_fn: The velocity at (x, t).
        noise: x at the first time.
        times: Increasing values of t; steps of zero length are skipped.
        solver: One of `SOLVERS`.
        callback: Called after each step with its number (from 1), their count and x.
        hold: Gets t and x after each step and returns the x to go on with.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    values = times.tolist()
    steps = [(a, b) for a, b in pairwise(values) if b != a]
    x = noise.float()
    before: _Step | None = None
    for number, (start, end) in enumerate(steps, 1):
        length = end - start
        velocity = velocity_fn(x, _times(x, start)).float()
        here = _Step(start, length, velocity, x + (1 - start) * velocity)
        if solver == "heun":
            ahead = velocity_fn(x + length * velocity, _times(x, end)).float()
            velocity = 0.5 * (velocity + ahead)
        elif solver == "midpoint":
            middle = x + 0.5 * length * velocity
            velocity = velocity_fn(middle, _times(x, start + 0.5 * length)).float()
        elif solver == "ab2" and before is not None:
            velocity = velocity + 0.5 * length / before.length * (velocity - before.velocity)
        elif solver == "dpm" and before is not None:
            # The weight is zero after the first step, from t = 0, and has no limit in the last.
            weight = _dpm_weight(before.start, start, end)
            data = here.data + weight * (here.data - before.data)
            velocity = (data - x) / (1 - start)
        before = here
        x = x + length * velocity
        if hold is not None:
            x = hold(end, x)
        if callback is not None:
            callback(number, len(steps), x)
    return x


class _Step(NamedTuple):
    start: float
    length: float
    velocity: Tensor
    data: Tensor
    """Where the velocity leads to at t = 1."""


def _dpm_weight(before: float, start: float, end: float) -> float:
    """Return half the ratio of two steps in log(t / (1 - t)), the log of signal over noise."""
    if before <= 0 or end >= 1:
        return 0.0
    earlier, now, later = (math.log(t / (1 - t)) for t in (before, start, end))
    return 0.5 * (later - now) / (now - earlier)


def guided_velocity(
    conditional: VelocityFn,
    unconditional: VelocityFn,
    guidance_scale: float,
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    reuse: int = 1,
    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> VelocityFn:
    """Return the velocity u + scale * (c - u) of classifier-free guidance.

    A negative scale switches guidance off and 1 makes it void: both then evaluate the
    conditional velocity only.

    Args:
        conditional: The velocity c with the condition.
        unconditional: The velocity u without it.
        guidance_scale: How far to go beyond c.
        interval: Values of t outside of which guidance is off.
        reuse: Evaluations in a row that share one c - u, which changes slower than u does.
        both: Returns c and u at once, instead of the two functions.
    """
    if guidance_scale < 0 or guidance_scale == 1:
        return conditional
    difference: Tensor | None = None
    uses = 0

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        nonlocal difference, uses
        if interval != (0.0, 1.0) and not interval[0] <= float(t[0]) <= interval[1]:
            return conditional(x, t)
        if difference is not None and uses < reuse:
            uses += 1
            return conditional(x, t).float() + (guidance_scale - 1) * difference
        if both is not None:
            with_, without = (part.float() for part in both(x, t))
        else:
            without, with_ = unconditional(x, t).float(), conditional(x, t).float()
        if reuse > 1:
            difference, uses = with_ - without, 1
        return without + guidance_scale * (with_ - without)

    return velocity


def _times(x: Tensor, t: float) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)
