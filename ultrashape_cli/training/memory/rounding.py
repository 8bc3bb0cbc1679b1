"""Stochastic rounding to bfloat16: small updates survive in the mean instead of being lost."""

from __future__ import annotations

import torch
from torch import Tensor

_CUT = 1 << 16
"""bf16 is the upper half of an fp32."""


def stochastic_round(values: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds fp32 to bf16, away from zero with the probability of the fraction cut off.

    Args:
        values: Any shape, contiguous fp32; infinities and NaN stay what they are.
        generator: On the device of `values`.
    """
    bits = values.view(torch.int32)
    noise = torch.randint(
        0, _CUT, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    # A carry out of the fraction into the exponent gives the next larger number; with the lower
    # half cleared the conversion is exact.
    rounded = noise.add_(bits).bitwise_and_(-_CUT).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)
