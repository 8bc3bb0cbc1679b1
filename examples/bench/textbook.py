"""A plain implementation of the DiT over its own layers: what the fast one is measured against.

Written as the papers write it: one boolean mask per expert, one projection after the other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.models.dit import DiTParams
from ultrashape_cli.models.embeddings import rope_3d, timestep_embedding

Layers = dict[str, nn.Module]


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def self_attention(w: Layers, name: str, x: Tensor, heads: int, rope: tuple) -> Tensor:
    parts = [w[f"{name}.to_{part}"](x) for part in "qkv"]
    qkv = torch.cat(parts, dim=-1).unflatten(-1, (heads, -1)).transpose(1, 2)
    q, k, v = qkv.chunk(3, dim=-1)
    q = rotate(rms(q, w[f"{name}.q_norm"].weight), *rope)
    k = rotate(rms(k, w[f"{name}.k_norm"].weight), *rope)
    out = F.scaled_dot_product_attention(q, k, v)
    return w[f"{name}.out_proj"](out.transpose(1, 2).flatten(2))


def cross_attention(w: Layers, name: str, x: Tensor, context: Tensor, heads: int) -> Tensor:
    q = w[f"{name}.to_q"](x).unflatten(-1, (heads, -1)).transpose(1, 2)
    parts = [w[f"{name}.to_{part}"](context) for part in "kv"]
    k, v = torch.cat(parts, -1).unflatten(-1, (heads, -1)).transpose(1, 2).chunk(2, dim=-1)
    q, k = rms(q, w[f"{name}.q_norm"].weight), rms(k, w[f"{name}.k_norm"].weight)
    out = F.scaled_dot_product_attention(q, k, v)
    return w[f"{name}.out_proj"](out.transpose(1, 2).flatten(2))


def expert(w: Layers, name: str, x: Tensor) -> Tensor:
    return w[f"{name}.net.2"](F.gelu(w[f"{name}.net.0.proj"](x)))


def experts(w: Layers, name: str, x: Tensor, params: DiTParams) -> Tensor:
    tokens = x.flatten(0, 1)
    scores = w[f"{name}.gate"](tokens).softmax(-1)
    weights, chosen = scores.topk(params.moe_top_k, dim=-1)
    out = torch.zeros_like(tokens)
    for index in range(params.num_experts):
        row, rank = (chosen == index).nonzero(as_tuple=True)
        if len(row):
            part = expert(w, f"{name}.experts.{index}", tokens[row])
            out.index_add_(0, row, part * weights[row, rank, None])
    return out.view_as(x) + expert(w, f"{name}.shared_experts", x)


def forward(
    w: Layers, params: DiTParams, x: Tensor, t: Tensor, context: Tensor, voxels: Tensor
) -> Tensor:
    """Return the velocity [B, M, C]."""
    head_dim = params.width // params.num_heads
    cos, sin = rope_3d(voxels, head_dim)
    rope = F.pad(cos, (0, 0, 1, 0), value=1.0)[:, None], F.pad(sin, (0, 0, 1, 0))[:, None]
    time = w["t_embedder.mlp.0"](timestep_embedding(t, params.width))
    time = w["t_embedder.mlp.2"](F.gelu(time))
    x = torch.cat([time[:, None], w["x_embedder"](x)], dim=1)
    skips = []
    for index in range(params.depth):
        name = f"blocks.{index}"
        if index > params.depth // 2:
            x = w[f"{name}.skip_linear"](torch.cat([skips.pop(), x], dim=-1))
            x = w[f"{name}.skip_norm"](x)
        x = x + self_attention(w, f"{name}.attn1", w[f"{name}.norm1"](x), params.num_heads, rope)
        y = w[f"{name}.norm2"](x)
        x = x + cross_attention(w, f"{name}.attn2", y, context, params.num_heads)
        y = w[f"{name}.norm3"](x)
        if index >= params.depth - params.num_moe_layers:
            x = x + experts(w, f"{name}.moe", y, params)
        else:
            x = x + w[f"{name}.mlp.fc2"](F.gelu(w[f"{name}.mlp.fc1"](y)))
        if index < params.depth // 2:
            skips.append(x)
    return w["final_layer.linear"](w["final_layer.norm_final"](x)[:, 1:])
