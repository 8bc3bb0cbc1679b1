"""Stochastic rounding to bfloat16: small updates survive in the mean instead of being lost."""

from __future__ import annotations

import torch
from torch import Tensor

_CUT = 1 << 16
"""bf16 is the upper half of an fp32."""
_MASK = (1 << 32) - 1


def stochastic_round(values: Tensor, key: Tensor) -> Tensor:
    """Rounds fp32 to bf16, away from zero with the probability of the fraction cut off.

    The noise is a function of key and position alone, the same on every device.

    Args:
        values: Any shape, contiguous fp32; infinities and NaN stay what they are.
        key: Integer below 2^32, int64 [] on the device of `values`.
    """
    position = torch.arange(values.numel(), device=values.device).view(values.shape)
    noise = hash_bits(position + hash_bits(key)) & (_CUT - 1)
    # A carry out of the fraction into the exponent gives the next larger number; with the lower
    # half cleared the conversion is exact.
    bits = (values.view(torch.int32) + noise.to(torch.int32)) & -_CUT
    return torch.where(values.isfinite(), bits.view(torch.float32), values).to(torch.bfloat16)


def hash_bits(x: Tensor) -> Tensor:
    """Returns 32 well mixed bits of integers, int64 of the same shape.

    A multiply-xorshift hash whose constants (C. Wellons, "Prospecting for hash functions", 2018)
    are below 2^31, so that products of 32 bits fit int64.
    """
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)
