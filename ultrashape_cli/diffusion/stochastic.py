"""Euler steps that add noise, whose likelihood can be told: what a policy gradient needs of a flow.

Our t runs from 0, noise, to 1, data; the papers' time is 1 - t. From x = t data + (1 - t) noise
and the velocity v = data - noise follows the noise x - t v, and with it the score of the path. The
equation with the same distributions at all t (Liu et al., "Flow-GRPO", 2025, eq. 9) is here

    dx = [v - g^2 / (2 (1 - t)) (x - t v)] dt + g dw,   g = a sqrt((1 - t) / t).

A flow that starts at the coarse mesh has no noise in its path, and so no score: its steps are those
of Euler with noise of g = a sqrt(1 - t) around them, which fades towards the end.

Legend: B batch, M latents, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class NoisyStep(NamedTuple):
    """One step from t to t + length.

    Args:
        t: Where it starts, in [0, 1).
        length: Of the step, above 0.
        noise: The a of the equation.
        from_noise: The flow starts from noise, and not at the coarse mesh.
    """

    t: float
    length: float
    noise: float
    from_noise: bool

    @property
    def _rate(self) -> float:
        """Returns g. At t = 0, where it has no bound, that of the end of the step."""
        t = self.t or self.length
        left = 1 - t
        return self.noise * math.sqrt(left / t if self.from_noise else 1 - self.t)

    @property
    def std(self) -> float:
        """Standard deviation of the noise that the step adds."""
        return self._rate * math.sqrt(self.length)

    def mean(self, x: Tensor, velocity: Tensor) -> Tensor:  # [B, M, C] fp32
        """Returns where the step leads without its noise.

        Args:
            x: Where it starts [B, M, C].
            velocity: Of the network there.
        """
        x, velocity = x.float(), velocity.float()
        drift = velocity
        if self.from_noise:
            t = self.t or self.length
            drift = velocity - self._rate**2 / (2 * (1 - t)) * (x - self.t * velocity)
        return x + self.length * drift

    def log_likelihood(self, reached: Tensor, mean: Tensor) -> Tensor:  # [B] fp32
        """Returns the log of the density of what was reached, the mean over tokens and channels.

        The sum of a million dimensions would leave ratios of 0 and infinity alone.

        Args:
            reached: x after the step [B, M, C].
            mean: From `mean`.
        """
        scaled = (reached.float() - mean) / self.std
        constant = math.log(self.std) + 0.5 * math.log(2 * math.pi)
        return -0.5 * scaled.square().flatten(1).mean(1) - constant

    def divergence(self, mean: Tensor, reference: Tensor) -> Tensor:  # [B]
        """Returns the KL divergence of two such steps, the mean over tokens and channels."""
        return ((mean - reference) / self.std).square().flatten(1).mean(1) / 2
