"""The refinement diffusion transformer: noisy latents at voxels, an image -> velocity.

Legend: B batch, M latents, C in channels, W width, L context tokens, D channels of one head,
X context channels, F camera features, T = M + 1 tokens with the time token first, R routed blocks,
E experts.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ultrashape_cli.models.attention import (
    AttentionLayer,
    Mlp,
    attention,
    key_lengths,
    merge_heads,
)
from ultrashape_cli.models.embeddings import (
    apply_rotation,
    check_rope_head_dim,
    rope_3d,
    rotation,
    timestep_embedding,
)
from ultrashape_cli.models.moe import MoEFeedForward, Routed
from ultrashape_cli.models.norms import NORM_EPS, LayerNorm, RMSNorm
from ultrashape_cli.models.view_embedding import EMBEDDER, view_embedder

MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTParams:
    """Sizes of the diffusion transformer; the defaults are those of the released weights."""

    in_channels: int = 64
    width: int = 2048
    context_channels: int = 1024
    depth: int = 21
    num_heads: int = 16
    num_moe_layers: int = 6
    """the last blocks, with routed feed-forwards"""
    num_experts: int = 8
    moe_top_k: int = 2
    voxel_resolution: int = 128

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by {self.num_heads} heads")
        check_rope_head_dim(self.width // self.num_heads)
        if not 0 <= self.num_moe_layers <= self.depth:
            raise ValueError(f"num_moe_layers {self.num_moe_layers} is not in 0..{self.depth}")
        if self.moe_top_k > self.num_experts:
            raise ValueError(f"moe_top_k {self.moe_top_k} exceeds {self.num_experts} experts")


class DiTOutput(NamedTuple):
    """What the network returns; add `aux_losses.sum()` to a training loss."""

    velocity: Tensor  # [B, M, C]
    aux_losses: Tensor  # [R] load-balancing loss of each routed block, weighted
    expert_load: Tensor  # [R, E] tokens given to each expert, integers


Keys = tuple[Tensor, Tensor]
"""Keys and values of the context, [B, H, L, D] each."""


class ContextKeys(NamedTuple):
    """What the blocks read of a context: computed once, where it stays the same over calls."""

    blocks: tuple[Keys, ...]
    num_tokens: int


class _SelfAttention(AttentionLayer):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(num_heads)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # [B, T, W], [B, 1, T, D]
        # The released weights read heads across the concatenation of q, k and v outputs: head 0
        # takes its q, k and v all from the first 3 * D channels.
        qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], dim=-1)
        q, k, v = qkv.unflatten(-1, (self.num_heads, 3, -1)).transpose(1, 2).unbind(3)
        q = apply_rotation(self.q_norm(q), cos, sin).to(v.dtype)
        k = apply_rotation(self.k_norm(k), cos, sin).to(v.dtype)
        return self.out_proj(merge_heads(attention(q, k, v, backend=self.backend)))


class _CrossAttention(AttentionLayer):
    def __init__(self, width: int, context_channels: int, num_heads: int) -> None:
        super().__init__(num_heads)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_channels, width, bias=False)
        self.to_v = nn.Linear(context_channels, width, bias=False)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,  # [B, T, W]
        context: Tensor | Keys | None,  # [B, L, X], or from `keys`
        lengths: tuple[int, ...] | None,
    ) -> Tensor:  # [B, T, W], or [1, 1, W] without context
        if context is None:
            # A context of zeros has zero values (no bias), so attention returns zeros.
            return self.out_proj(x.new_zeros(1, 1, x.shape[-1]))
        q = self.to_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.keys(context) if isinstance(context, Tensor) else context
        q = self.q_norm(q).to(v.dtype)
        return self.out_proj(merge_heads(attention(q, k, v, lengths=lengths, backend=self.backend)))

    def keys(self, context: Tensor) -> Keys:  # [B, L, X] -> two [B, H, L, D]
        # As in self-attention, heads are read across the concatenation of k and v outputs.
        kv = torch.cat([self.to_k(context), self.to_v(context)], dim=-1)
        k, v = kv.unflatten(-1, (self.num_heads, 2, -1)).transpose(1, 2).unbind(3)
        return self.k_norm(k).to(v.dtype), v


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward, with an optional skip input."""

    def __init__(self, params: DiTParams, *, skip: bool, routed: bool) -> None:
        super().__init__()
        width, heads = params.width, params.num_heads
        if skip:
            self.skip_linear = nn.Linear(2 * width, width)
            self.skip_norm = LayerNorm(width, eps=NORM_EPS)
        self.has_skip = skip
        self.norm1 = LayerNorm(width, eps=NORM_EPS)
        self.attn1 = _SelfAttention(width, heads)
        self.norm2 = LayerNorm(width, eps=NORM_EPS)
        self.attn2 = _CrossAttention(width, params.context_channels, heads)
        self.norm3 = LayerNorm(width, eps=NORM_EPS)
        self.routed = routed
        if routed:
            self.moe = MoEFeedForward(
                width, MLP_RATIO * width, params.num_experts, params.moe_top_k
            )
        else:
            self.mlp = Mlp(width, MLP_RATIO * width)

    def context_keys(self, context: Tensor) -> Keys:  # [B, L, X]
        """Return what the cross-attention reads of a context, without the rest of its memory."""
        k, v = self.attn2.keys(context)
        return k.contiguous(), v.contiguous()

    def forward(
        self,
        x: Tensor,  # [B, T, W]
        skip: Tensor | None,  # [B, T, W]
        rope: tuple[Tensor, Tensor],  # two [B, 1, T, D], from `rotation`
        context: Tensor | Keys | None,  # [B, L, X], or from `context_keys`
        lengths: tuple[int, ...] | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # x, auxiliary loss, expert load
        """Apply the block; loss and load are None without routing."""
        x, normed = self.attend(x, skip, rope)
        x = x + self.attn2(normed, context, lengths)
        del normed  # not held through the feed-forward, where memory peaks
        if not self.routed:
            return self.feed(x), None, None
        out: Routed = self.moe(self.norm3(x))
        return x + out.hidden, out.aux_loss, out.load

    def attend(
        self,
        x: Tensor,  # [B, T, W]
        skip: Tensor | None,  # [B, T, W]
        rope: tuple[Tensor, Tensor],  # two [B, 1, T, D]
    ) -> tuple[Tensor, Tensor]:  # twice [B, T, W]
        """Apply the self-attention; return the result, and what the cross-attention reads of it."""
        if self.has_skip:
            assert skip is not None
            x = self.skip_norm(self.skip_linear(torch.cat([skip, x], dim=-1)))
        x = x + self.attn1(self.norm1(x), *rope)
        return x, self.norm2(x)

    def feed(self, x: Tensor) -> Tensor:  # [B, T, W]
        """Apply the feed-forward of a block without routing."""
        return x + self.mlp(self.norm3(x))


class _TimeEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, t: Tensor) -> Tensor:  # [B] -> [B, 1, W]
        embedded = timestep_embedding(t, self.width)
        return self.mlp(embedded.to(next(self.mlp.parameters()).dtype))[:, None]


class _FinalLayer(nn.Module):
    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, W] -> [B, M, C]
        x = self.norm_final(x)[:, 1:]
        return self.linear(x.to(self.linear.weight.dtype))


class RefineDiT(nn.Module):
    """Predicts the velocity data - noise of latents that sit at voxels.

    `checkpoint_blocks` recomputes the first so many blocks in the backward.
    """

    def __init__(self, params: DiTParams, *, checkpoint_blocks: int = 0) -> None:
        super().__init__()
        self.params = params
        self.checkpoint_blocks = checkpoint_blocks
        self.x_embedder = nn.Linear(params.in_channels, params.width)
        self.t_embedder = _TimeEmbedder(params.width)
        first_skip = params.depth // 2 + 1
        first_routed = params.depth - params.num_moe_layers
        self.blocks = nn.ModuleList(
            DiTBlock(params, skip=index >= first_skip, routed=index >= first_routed)
            for index in range(params.depth)
        )
        self.final_layer = _FinalLayer(params.width, params.in_channels)
        self.view_embedder: nn.Linear | None = None
        """Of networks that train, or were trained, with several images."""

    def forward(
        self,
        x: Tensor,  # [B, M, C]
        t: Tensor,  # [B] in [0, 1]: 0 noise, 1 data
        context: Tensor | ContextKeys | None,  # [B, L, X]; None is the unconditional input
        voxel_indices: Tensor,  # [B, M, 3] integers
        context_lengths: Sequence[int] | Tensor | None = None,
        cameras: Tensor | None = None,  # [B, L, F], of a context of tokens
    ) -> DiTOutput:
        """Return the velocity, the auxiliary losses and the expert loads.

        `context_lengths` counts the valid tokens of each sample, which come first; without it
        all are valid. None as context equals a context of zeros, without its cost; to_q, to_k
        and to_v of the cross-attention then get no gradient. `cameras` tells of each token from
        where its image was seen (`view_embedding.camera_features`).
        """
        self._check(x, t, context, voxel_indices)
        if cameras is not None:
            assert isinstance(context, Tensor)
            context = self.seen_from(context, cameras)
        lengths = None
        if context is not None:
            size = context.shape[1] if isinstance(context, Tensor) else context.num_tokens
            lengths = key_lengths(context_lengths, size)
        cos, sin = rope_3d(voxel_indices, self.params.width // self.params.num_heads)
        rope = rotation(F.pad(cos, (0, 0, 1, 0), value=1.0), F.pad(sin, (0, 0, 1, 0)))
        dtype = self.x_embedder.weight.dtype
        x = torch.cat([self.t_embedder(t), self.x_embedder(x.to(dtype))], dim=1)
        if isinstance(context, Tensor) and not torch.is_autocast_enabled(x.device.type):
            # Under autocast every layer would make, and keep, a copy of its own in bf16.
            context = context.to(dtype)

        skips: list[Tensor] = []
        losses, loads = [x.new_zeros(0, dtype=torch.float32)], []
        for index, block in enumerate(self.blocks):
            skip = skips.pop() if block.has_skip else None
            seen = context.blocks[index] if isinstance(context, ContextKeys) else context
            x, loss, load = self._run(index, block, x, skip, rope, seen, lengths)
            if index < self.params.depth // 2:
                skips.append(x)
            if loss is not None:
                losses.append(loss[None])
                loads.append(load)
        experts = (0, self.params.num_experts)
        expert_load = torch.stack(loads) if loads else x.new_zeros(experts, dtype=torch.long)
        return DiTOutput(self.final_layer(x), torch.cat(losses), expert_load)

    def add_view_embedder(self) -> None:
        """Have the network take cameras, whose layer starts at zero: that changes nothing."""
        like = self.x_embedder.weight
        layer = view_embedder(self.params.context_channels)
        self.view_embedder = layer.to(like.device, like.dtype)

    def fit_view_embedder(self, weights: Container[str]) -> None:
        """Have the network take cameras where the weights that it is to load do."""
        if f"{EMBEDDER}.weight" in weights:
            self.add_view_embedder()

    def seen_from(self, context: Tensor, cameras: Tensor) -> Tensor:  # [B, L, X], [B, L, F]
        """Return image tokens [B, L, X] that tell from where each was seen."""
        if self.view_embedder is None:
            raise ValueError("the network was not trained with several views")
        weight = self.view_embedder.weight
        return context + self.view_embedder(cameras.to(weight.dtype))

    def context_keys(
        self, context: Tensor, blocks: Iterable[nn.Module] | None = None
    ) -> ContextKeys:
        """Return what the blocks read of a context [B, L, X], to pass instead of it.

        `blocks` replaces the network's own where their weights come and go.
        """
        if not torch.is_autocast_enabled(context.device.type):
            context = context.to(self.x_embedder.weight.dtype)
        keys = [block.context_keys(context) for block in blocks or self.blocks]  # type: ignore[operator]
        return ContextKeys(tuple(keys), context.shape[1])

    def _run(self, index: int, block: Any, *args: object) -> tuple:
        if torch.is_grad_enabled() and index < self.checkpoint_blocks:
            options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
            if block.routed:
                options["context_fn"] = block.moe.repeated
            return checkpoint(block, *args, **options)
        return block(*args)

    def _check(
        self, x: Tensor, t: Tensor, context: Tensor | ContextKeys | None, voxel_indices: Tensor
    ) -> None:
        params = self.params
        if x.ndim != 3 or x.shape[2] != params.in_channels:
            raise ValueError(f"latents must be [B, M, {params.in_channels}], got {[*x.shape]}")
        if voxel_indices.shape != (*x.shape[:2], 3):
            raise ValueError(
                f"voxel indices must be {[*x.shape[:2], 3]}, got {[*voxel_indices.shape]}"
            )
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must be [{x.shape[0]}], got {[*t.shape]}")
        if isinstance(context, Tensor) and (
            context.ndim != 3
            or context.shape[0] != x.shape[0]
            or context.shape[2] != params.context_channels
        ):
            raise ValueError(
                f"context must be [{x.shape[0]}, L, {params.context_channels}], "
                f"got {[*context.shape]}"
            )
        # Reading the values would stop an accelerator's queue, so only CPU tensors are checked; a
        # graph has no values.
        if torch.compiler.is_compiling():
            return
        if voxel_indices.device.type == "cpu" and voxel_indices.numel():
            low, high = voxel_indices.aminmax()
            if low < 0 or high >= params.voxel_resolution:
                raise ValueError(
                    f"voxel indices must lie in 0..{params.voxel_resolution - 1}, "
                    f"got {int(low)}..{int(high)}"
                )
