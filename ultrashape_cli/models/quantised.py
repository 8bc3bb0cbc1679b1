"""Linear layers with frozen weights of 8 or 4 bits, in plain torch operations.

Legend: O output channels, I input channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NF4 = (
    *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
)
"""Levels of the 4-bit NormalFloat (Dettmers et al., "QLoRA", 2023, appendix E)."""
NF4_BLOCK = 64


class _FrozenProduct(torch.autograd.Function):
    """x @ W.T that keeps the codes, not the weight they stand for, until the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype, ctx.kind = layer, dtype, x.dtype
        return x.to(dtype) @ layer.dequantise(dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return (grad.to(ctx.dtype) @ ctx.layer.dequantise(ctx.dtype)).to(ctx.kind), None, None


class QuantisedLinear(nn.Linear):
    """A frozen linear layer whose weight is kept as codes and scales.

    `int8` has one scale per output channel, `nf4` 16 normal quantiles and one scale per 64
    weights. Gradients reach the input only.

    Args:
        source: The layer to quantise.
        kind: `int8` or `nf4`.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, source: nn.Linear, kind: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = source.in_features, source.out_features
        self.kind = kind
        weight = source.weight.detach().float()
        if kind == "int8":
            scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            codes = (weight / scale).round().to(torch.int8)
        elif kind == "nf4":
            codes, scale = _encode_nf4(weight)
        else:
            raise ValueError(f"unknown kind {kind!r}; known: int8, nf4")
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        bias = None if source.bias is None else nn.Parameter(source.bias.detach(), False)
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight the codes stand for, fp32 [O, I]."""
        return self.dequantise(torch.float32)

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight [O, I] in another dtype."""
        if self.kind == "int8":
            return self.codes.to(dtype) * self.scale.to(dtype)
        pairs = self.codes.to(torch.long)
        levels = torch.tensor(NF4, dtype=dtype, device=pairs.device)
        values = torch.stack([levels[pairs >> 4], levels[pairs & 15]], dim=-1)
        values = values.view(-1, NF4_BLOCK) * self.scale.to(dtype)
        count = self.out_features * self.in_features
        return values.view(-1)[:count].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:  # [..., I] -> [..., O]
        """Apply the layer in the ambient dtype."""
        kind = x.device.type
        auto = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if auto else x.dtype
        product = _FrozenProduct.apply(x, self, dtype)
        return product if self.bias is None else product + self.bias.to(dtype)


def _encode_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two codes per byte [N / 2] and one scale per block [N / 64, 1]."""
    flat = weight.reshape(-1)
    blocks = F.pad(flat, (0, -flat.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    levels = torch.tensor(NF4, device=weight.device)
    codes = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    pairs = codes.view(-1, 2)
    return (pairs[:, 0] << 4) | pairs[:, 1], scale


def quantise_linears(module: nn.Module, names: list[str], kind: str) -> None:
    """Replaces the named linear layers below `module` by quantised ones."""
    for name in names:
        parent, _, last = name.rpartition(".")
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(module.get_submodule(parent), last, QuantisedLinear(layer, kind))
