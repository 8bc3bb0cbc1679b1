"""Positions and times as vectors. No function here has weights.

Legend: B batch, M tokens, N points, C channels, D channels of one head, h and w patch rows and
columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROPE_THETA = 10000.0
MAX_HEAD_DIM = 128
# The released weights were tuned with position embeddings resized by the factor (n + 0.1) / m
# instead of n / m; the sampling positions move with it.
POSITION_RESIZE_OFFSET = 0.1


def fourier_width(num_freqs: int) -> int:
    """Return the width of `fourier_features` of a 3-D point."""
    return 3 * (2 * num_freqs + 1)


def fourier_features(
    points: Tensor,  # [..., 3]
    num_freqs: int = 8,
    *,
    include_pi: bool = False,
) -> Tensor:  # [..., 3 * (2 * num_freqs + 1)]
    """Return [p, sin(E), cos(E)], where E holds p times 1, 2, 4 ... axis by axis."""
    freqs = 2.0 ** torch.arange(num_freqs, dtype=points.dtype, device=points.device)
    if include_pi:
        freqs = freqs * math.pi
    angles = (points[..., None] * freqs).flatten(-2)
    return torch.cat([points, angles.sin(), angles.cos()], dim=-1)


def timestep_embedding(t: Tensor, width: int) -> Tensor:  # [B] -> [B, width] fp32
    """Return sines then cosines of t in [0, 1]; the released weights do not scale t."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * index / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def check_rope_head_dim(head_dim: int) -> None:
    """Raise ValueError unless the head width splits into three even-sized rotation ranges."""
    if head_dim % 8 or head_dim > MAX_HEAD_DIM or (head_dim // 3) % 2:
        raise ValueError(
            f"head width {head_dim} cannot carry 3-D rotary positions: it must be a multiple of "
            f"8, at most {MAX_HEAD_DIM}, and a third of it even (24, 32, 48, 56, 72, 80, 96, 128)"
        )


def rope_3d(
    indices: Tensor,  # [B, M, 3] integer voxel indices
    head_dim: int,
) -> tuple[Tensor, Tensor]:  # two [B, M, D], fp32
    """Return cosines and sines of the rotation angles of every token."""
    check_rope_head_dim(head_dim)
    third = head_dim // 3
    angles = []
    for axis, dim in enumerate((third, third, head_dim - 2 * third)):
        exponent = torch.arange(0, dim, 2, dtype=torch.float32, device=indices.device) / dim
        angles.append(indices[..., axis, None].float() * ROPE_THETA**-exponent)
    half = torch.cat(angles, dim=-1)
    full = torch.cat([half, half], dim=-1)
    return full.cos(), full.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [B, H, M, D] by [B, M, D] cosines and sines, pairing channel c with c + D/2.

    The readable twin of `apply_rotation`.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x * cos[:, None] + turned * sin[:, None]).to(x.dtype)


def rotation(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:  # two [B, M, D] -> [B, 1, M, D]
    """Return the factors that `apply_rotation` wants, the sines with their signs."""
    first, second = sin.chunk(2, dim=-1)
    return cos[:, None], torch.cat([-first, second], dim=-1)[:, None]


def apply_rotation(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotate [B, H, M, D] as `apply_rope`, in three passes over memory; the result may be fp32."""
    first, second = x.chunk(2, dim=-1)
    # The kernel reads operands of different dtypes; CUDA's autocast would copy them to fp32 first.
    with torch.autocast(x.device.type, enabled=False):
        return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), signed_sin)


def resize_position_embedding(
    embedding: Tensor,  # [1, 1 + m*m, C], class token first
    grid: tuple[int, int],
) -> Tensor:  # [1, 1 + h*w, C]
    """Resize learned position embeddings to another patch grid, bicubic, in fp32."""
    side = math.isqrt(embedding.shape[1] - 1)
    if grid == (side, side):
        return embedding
    patches = embedding[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = tuple((n + POSITION_RESIZE_OFFSET) / side for n in grid)
    resized = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    if resized.shape[-2:] != grid:
        raise ValueError(f"position embeddings came out as {tuple(resized.shape[-2:])}, not {grid}")
    return torch.cat([embedding[:, :1], resized.flatten(2).transpose(1, 2).to(embedding.dtype)], 1)
