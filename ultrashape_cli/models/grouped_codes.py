"""Codes of 8, 6 and 4 bits, packed into bytes, with a scale for 16 or 32 weights of a row each.

A code q stands for q * scale + offset; those of 8 and 6 bits are symmetric and need no offset.
Scales are bf16: they have the range of fp32, cost half a bit or one a weight, and are exact
wherever the layer computes. Codes are chosen for the rounded scales, so that rounding them loses
nothing.

Legend: O output channels, I input channels, G groups of a row, whose last is filled up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32
"""Weights of 6 and 4 bits that share a scale."""
GROUP_INT8 = 16
"""Those of 8 bits: of 32, latents err by more than twice what rounding to bf16 costs them."""
LARGEST_INT8 = 127
LARGEST_INT6 = 31
LARGEST_INT4 = 15
_SHRINKS = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)
"""Parts of a group's range that are tried: a few clipped weights may cost less than a coarse grid
for all. The one with the least squared error is taken."""
_BIAS = 32
"""Added to codes of 6 bits, which then have no sign."""


def groups_of(inputs: int, group: int = GROUP) -> int:
    """Returns the groups of a row of so many weights."""
    return -(-inputs // group)


def encode_int8(rows: Tensor) -> dict[str, Tensor]:  # [O, I] fp32
    """Returns `codes` [O, 16 G] in bytes with a sign, and `scale` [O, G]."""
    groups = _grouped(rows, GROUP_INT8)
    # Clipping gains nothing at this many steps.
    scale = _rounded(groups.abs().amax(-1, keepdim=True) / LARGEST_INT8)
    codes = (groups / scale).round_().clamp_(-LARGEST_INT8, LARGEST_INT8)
    return {"codes": codes.to(torch.int8).flatten(1), "scale": scale[..., 0].bfloat16()}


def encode_int6(rows: Tensor) -> dict[str, Tensor]:  # [O, I] fp32
    """Returns `codes` [O, 24 G] in bytes, four in three, and `scale` [O, G]."""
    groups = _grouped(rows)
    largest = groups.abs().amax(-1, keepdim=True)
    zero = torch.zeros_like(largest)
    tried = [(_rounded(largest * s / LARGEST_INT6), zero) for s in _SHRINKS]
    codes, scale, _ = _best(groups, tried, -LARGEST_INT6, LARGEST_INT6)
    a, b, c, d = (codes + _BIAS).to(torch.uint8).view(len(rows), -1, 4).unbind(-1)
    packed = torch.stack([a | (b << 6), (b >> 2) | (c << 4), (c >> 4) | (d << 2)], dim=-1)
    return {"codes": packed.flatten(1), "scale": scale[..., 0].bfloat16()}


def encode_int4(rows: Tensor) -> dict[str, Tensor]:  # [O, I] fp32
    """Returns `codes` [O, 16 G] in bytes, two in each, `scale` and `offset` [O, G]."""
    groups = _grouped(rows)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2
    tried = [
        (_rounded(2 * half * s / LARGEST_INT4), (middle - half * s).bfloat16().float())
        for s in _SHRINKS
    ]
    codes, scale, offset = _best(groups, tried, 0, LARGEST_INT4)
    first, second = codes.to(torch.uint8).view(len(rows), -1, 2).unbind(-1)
    return {
        "codes": first | (second << 4),
        "scale": scale[..., 0].bfloat16(),
        "offset": offset[..., 0].bfloat16(),
    }


def decode_int8(
    codes: Tensor,  # [O, 16 G]
    scale: Tensor,  # [O, G]
    inputs: int,
    dtype: torch.dtype,
) -> Tensor:  # [O, I]
    """Returns the weights that codes of 8 bits stand for."""
    values = codes.view(*scale.shape, GROUP_INT8).to(dtype) * scale[..., None].to(dtype)
    return values.flatten(1)[:, :inputs]


def decode_int6(
    codes: Tensor,  # [O, 24 G]
    scale: Tensor,  # [O, G]
    inputs: int,
    dtype: torch.dtype,
) -> Tensor:  # [O, I]
    """Returns the weights that codes of 6 bits stand for."""
    a, b, c = codes.view(len(codes), -1, 3).unbind(-1)
    parts = (a & 63, (a >> 6) | ((b & 15) << 2), (b >> 4) | ((c & 3) << 4), c >> 2)
    values = torch.stack(parts, dim=-1).view(*scale.shape, GROUP).to(dtype) - _BIAS
    return (values * scale[..., None].to(dtype)).flatten(1)[:, :inputs]


def decode_int4(
    codes: Tensor,  # [O, 16 G]
    scale: Tensor,  # [O, G]
    offset: Tensor,  # [O, G]
    inputs: int,
    dtype: torch.dtype,
) -> Tensor:  # [O, I]
    """Returns the weights that codes of 4 bits stand for."""
    values = torch.stack([codes & 15, codes >> 4], dim=-1).view(*scale.shape, GROUP).to(dtype)
    values = values * scale[..., None].to(dtype) + offset[..., None].to(dtype)
    return values.flatten(1)[:, :inputs]


def _grouped(rows: Tensor, group: int = GROUP) -> Tensor:  # [O, I] -> [O, G, 32]
    # The last weight again: zeros would widen the range of a group that has none.
    missing = groups_of(rows.shape[1], group) * group - rows.shape[1]
    filled = F.pad(rows[None], (0, missing), mode="replicate")[0] if missing else rows
    return filled.unflatten(1, (-1, group))


def _rounded(scale: Tensor) -> Tensor:
    return scale.clamp_min(1e-12).bfloat16().float()


def _best(
    groups: Tensor, tried: list[tuple[Tensor, Tensor]], low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns codes [O, G, 32], scale and offset [O, G, 1] of the least squared error."""
    best: tuple[Tensor, ...] | None = None
    for scale, offset in tried:
        codes = ((groups - offset) / scale).round_().clamp_(low, high)
        error = (codes * scale + offset - groups).square().sum(-1, keepdim=True)
        found = (codes, scale, offset, error)
        if best is not None:
            is_better = error < best[3]
            found = tuple(torch.where(is_better, a, b) for a, b in zip(found, best, strict=True))  # type: ignore[assignment]
        best = found
    assert best is not None
    return best[0], best[1], best[2]
