"""Norms that read and write the dtype of their input, whatever autocast would have them do.

CUDA's autocast runs layer norms, and from torch 2.12 root-mean-square norms, in fp32 and returns
fp32: every reader then casts a copy of its own, and what is kept for the backward doubles. The
kernels reduce in fp32 inside in any case.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6  # of every norm in the released weights, except the VAE's `ln_post`


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D]
        """Normalise in the dtype of `x`; the reduction inside runs in fp32."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, weight only."""

    def __init__(self, width: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D]
        """Normalise in the dtype of `x`; the reduction inside runs in fp32."""
        if x.is_cuda:
            weight = self.weight.to(x.dtype)
            with torch.autocast("cuda", enabled=False):
                return F.rms_norm(x, weight.shape, weight, self.eps)
        # On the CPU torch's own is no single kernel and copies strided inputs: half as fast.
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)
