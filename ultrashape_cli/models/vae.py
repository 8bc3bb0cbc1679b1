"""The shape autoencoder: surface points -> latent set -> field.

Legend: B batch, N surface points, M latents, Q query points, C width, E latent channels, H heads,
D channels of one head, G keys kept for a group of queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.devices import upload
from ultrashape_cli.models.attention import AttentionLayer, attention, merge_heads
from ultrashape_cli.models.embeddings import fourier_features, fourier_width
from ultrashape_cli.models.norms import NORM_EPS, LayerNorm

POST_NORM_EPS = 1e-5  # both `ln_post` layers of the released weights
LOGVAR_RANGE = (-30.0, 20.0)
PARTS = {
    "encoder": ("encoder.", "pre_kl."),
    "decoder": ("post_kl.", "transformer.", "geo_decoder."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEParams:
    """Sizes of the autoencoder; the defaults are those of the released weights."""

    num_latents: int = 32768
    """most voxel queries of one shape"""
    width: int = 1024
    num_heads: int = 16
    latent_channels: int = 64
    num_encoder_layers: int = 8
    num_decoder_layers: int = 16
    field_mlp_ratio: int = 4
    """hidden over outer width in the cross-attention block that answers queries"""
    field_norms: bool = True
    """norms of that block's heads and output (`geo_decoder_ln_post` of the reference)"""
    field_downsample: int = 1
    """outer width over the width of that block (`geo_decoder_downsample_ratio`)"""
    num_freqs: int = 8
    include_pi: bool = False
    num_point_features: int = 4
    """columns of a surface point after xyz: normal and sharp label"""
    downsample_ratio: int = 20
    """surface points used per latent"""
    voxel_resolution: int = 128
    truncation: float = 0.01
    """the field is -SDF over this many half-extents, clipped to [-1, 1]"""
    scale_factor: float = 1.0039506158752403
    """the DiT sees latents times this"""

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not divisible by {self.num_heads} heads")
        if self.num_heads % self.field_downsample:
            raise ValueError(
                f"{self.num_heads} heads are not divisible by {self.field_downsample} "
                "(field_downsample)"
            )


class Posterior(NamedTuple):
    """A diagonal normal distribution over latents."""

    mean: Tensor  # [B, M, E]
    logvar: Tensor  # [B, M, E]

    def sample(self, noise: Tensor) -> Tensor:  # [B, M, E] -> [B, M, E]
        """Return mean + standard deviation * noise."""
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:  # [B]
        """Return the divergence from N(0, 1), averaged over tokens and channels."""
        terms = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * terms.flatten(1).mean(1)


class _HeadNorms(nn.Module):
    def __init__(self, head_dim: int, enabled: bool = True) -> None:
        super().__init__()
        self.q_norm = LayerNorm(head_dim, eps=NORM_EPS) if enabled else nn.Identity()
        self.k_norm = LayerNorm(head_dim, eps=NORM_EPS) if enabled else nn.Identity()


class _Mlp(nn.Module):
    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, ratio * width)
        self.c_proj = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class _SelfAttention(AttentionLayer):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(num_heads)
        self.c_qkv = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width)
        self.attention = _HeadNorms(width // num_heads)

    def forward(self, x: Tensor) -> Tensor:  # [B, M, C] -> [B, M, C]
        # The fused rows are grouped by head: q, k, v of head 0, then of head 1 ...
        qkv = self.c_qkv(x).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(3))
        q, k = self.attention.q_norm(q).to(v.dtype), self.attention.k_norm(k).to(v.dtype)
        return self.c_proj(merge_heads(attention(q, k, v, backend=self.backend)))


class SelfBlock(nn.Module):
    """Residual self-attention and MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = _SelfAttention(width, num_heads)
        self.ln_1 = LayerNorm(width, eps=NORM_EPS)
        self.mlp = _Mlp(width, 4)
        self.ln_2 = LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:  # [B, M, C] -> [B, M, C]
        """Apply the block."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class SelfStack(nn.Module):
    """A sequence of `SelfBlock`."""

    def __init__(self, width: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:  # [B, M, C] -> [B, M, C]
        """Apply all blocks."""
        for block in self.resblocks:
            x = block(x)
        return x


class _CrossAttention(AttentionLayer):
    def __init__(self, width: int, num_heads: int, head_norms: bool) -> None:
        super().__init__(num_heads)
        self.c_q = nn.Linear(width, width, bias=False)
        self.c_kv = nn.Linear(width, 2 * width, bias=False)
        self.c_proj = nn.Linear(width, width)
        self.attention = _HeadNorms(width // num_heads, head_norms)

    def queries(self, x: Tensor) -> Tensor:  # [B, Q, C] -> [B, H, Q, D]
        q = self.c_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.attention.q_norm(q).to(q.dtype)

    def keys(self, data: Tensor) -> tuple[Tensor, Tensor]:  # [B, M, C] -> two [B, H, M, D]
        # The fused rows are grouped by head: k, v of head 0, then of head 1 ...
        kv = self.c_kv(data).unflatten(-1, (self.num_heads, 2, -1))
        k, v = (part.transpose(1, 2) for part in kv.unbind(3))
        return self.attention.k_norm(k).to(v.dtype), v

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # -> [B, Q, C]
        return self.c_proj(merge_heads(attention(q, k, v, backend=self.backend)))


class CrossBlock(nn.Module):
    """Residual cross-attention and MLP; keys are computed apart so that they can be reused."""

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: int, *, head_norms: bool = True
    ) -> None:
        super().__init__()
        self.attn = _CrossAttention(width, num_heads, head_norms)
        self.ln_1 = LayerNorm(width, eps=NORM_EPS)
        self.ln_2 = LayerNorm(width, eps=NORM_EPS)
        self.mlp = _Mlp(width, mlp_ratio)
        self.ln_3 = LayerNorm(width, eps=NORM_EPS)

    def keys(self, data: Tensor) -> tuple[Tensor, Tensor]:  # [B, M, C] -> two [B, H, M, D]
        """Return keys and values of the attended tokens."""
        return self.attn.keys(self.ln_2(data))

    def queries(self, x: Tensor) -> Tensor:  # [B, Q, C] -> [B, H, Q, D]
        """Return the normalised queries."""
        return self.attn.queries(self.ln_1(x))

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B, Q, C] -> [B, Q, C]
        """Let the tokens attend to prepared keys and values."""
        x = x + self.attn(self.queries(x), k, v)
        return x + self.mlp(self.ln_3(x))


class Encoder(nn.Module):
    """Surface points read by query points, then self-attention among the queries."""

    def __init__(self, params: VAEParams) -> None:
        super().__init__()
        point_width = fourier_width(params.num_freqs)
        self.params = params
        self.input_proj_q = nn.Linear(point_width, params.width)
        self.input_proj_kv = nn.Linear(point_width + params.num_point_features, params.width)
        self.cross_attn = CrossBlock(params.width, params.num_heads, 4)
        self.self_attn = SelfStack(params.width, params.num_heads, params.num_encoder_layers)
        self.ln_post = LayerNorm(params.width, eps=POST_NORM_EPS)

    def forward(
        self,
        surface: Tensor,  # [B, N, 3 + point features]
        queries: Tensor,  # [B, M, 3]
    ) -> Tensor:  # [B, M, C]
        """Return one feature vector per query."""
        embed = _fourier(self.params)
        points = torch.cat([embed(surface[..., :3].float()), surface[..., 3:].float()], dim=-1)
        data = self.input_proj_kv(points.to(self.input_proj_kv.weight.dtype))
        x = self.input_proj_q(embed(queries.float()).to(self.input_proj_q.weight.dtype))
        x = self.self_attn(self.cross_attn(x, *self.cross_attn.keys(data)))
        return self.ln_post(x)


class FieldDecoder(nn.Module):
    """Query points read decoded features; one field value each."""

    def __init__(self, params: VAEParams) -> None:
        super().__init__()
        self.params = params
        width = params.width // params.field_downsample
        self.query_proj = nn.Linear(fourier_width(params.num_freqs), width)
        if params.field_downsample != 1:
            self.latents_proj = nn.Linear(params.width, width)
        self.cross_attn_decoder = CrossBlock(
            width,
            params.num_heads // params.field_downsample,
            params.field_mlp_ratio,
            head_norms=params.field_norms,
        )
        self.ln_post = LayerNorm(width, eps=POST_NORM_EPS) if params.field_norms else nn.Identity()
        self.output_proj = nn.Linear(width, 1)

    def keys(self, features: Tensor) -> tuple[Tensor, Tensor]:  # [B, M, C] -> two [B, H, M, D]
        """Return keys and values of decoded features."""
        if self.params.field_downsample != 1:
            features = self.latents_proj(features)
        return self.cross_attn_decoder.keys(features)

    def embed(self, points: Tensor) -> Tensor:  # [B, Q, 3] -> [B, Q, C]
        """Return query tokens; positions are embedded in fp32."""
        features = _fourier(self.params)(points.float())
        return self.query_proj(features.to(self.query_proj.weight.dtype))

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [B, Q, C] -> [B, Q]
        """Return the field at query tokens, given keys and values of the features."""
        x = self.ln_post(self.cross_attn_decoder(x, k, v))
        return self.output_proj(x.to(self.output_proj.weight.dtype)).squeeze(-1)


class ShapeVAE(nn.Module):
    """Encoder and decoder of latent sets.

    The field is positive inside: about minus the signed distance over the truncation. `parts`
    leaves one half out to save memory: refinement needs the decoder only, DiT training the
    encoder only.
    """

    def __init__(self, params: VAEParams, *, parts: Sequence[str] = ("encoder", "decoder")) -> None:
        super().__init__()
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise ValueError(f"unknown parts {sorted(unknown)}; known: {', '.join(PARTS)}")
        self.params = params
        self.parts = tuple(parts)
        if "encoder" in parts:
            self.encoder = Encoder(params)
            self.pre_kl = nn.Linear(params.width, 2 * params.latent_channels)
        if "decoder" in parts:
            self.post_kl = nn.Linear(params.latent_channels, params.width)
            self.transformer = SelfStack(params.width, params.num_heads, params.num_decoder_layers)
            self.geo_decoder = FieldDecoder(params)

    @property
    def absent_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of the parts left out; loading skips them."""
        return tuple(p for part in PARTS if part not in self.parts for p in PARTS[part])

    def encode(
        self,
        surface: Tensor,  # [B, N, 3 + point features]
        queries: Tensor,  # [B, M, 3], voxel centres or jittered surface points
        generator: torch.Generator | None = None,
    ) -> Posterior:
        """Return the distribution of latents; positions and posterior stay in fp32.

        More than num_latents * downsample_ratio points are thinned with the CPU generator.
        """
        limit = self.params.num_latents * self.params.downsample_ratio
        if surface.shape[1] > limit:
            if generator is None:
                raise ValueError(f"{surface.shape[1]} points exceed {limit}: pass a generator")
            order = torch.randperm(surface.shape[1], generator=generator)[:limit]
            surface = surface[:, upload(order, surface.device)]
        features = self.encoder(surface, queries)
        moments = self.pre_kl(features.to(self.pre_kl.weight.dtype)).float()
        mean, logvar = moments.chunk(2, dim=-1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, latents: Tensor) -> Tensor:  # [B, M, E] -> [B, M, C]
        """Return features for field queries. Divide DiT latents by `scale_factor` before."""
        return self.transformer(self.post_kl(latents.to(self.post_kl.weight.dtype)))

    def query_field(
        self,
        features: Tensor,  # [B, M, C], from `decode`
        points: Tensor,  # [B, Q, 3] in [-1, 1]
    ) -> Tensor:  # [B, Q]
        """Return the field at points, positive inside."""
        keys = self.geo_decoder.keys(features)
        return self.geo_decoder(self.geo_decoder.embed(points), *keys)

    def field(self, features: Tensor) -> "Field":  # [1, M, C]
        """Return the field of one shape as a function of points, its keys computed once."""
        return Field(self.geo_decoder, features)


class Field:
    """The field of one decoded latent set, a function of points [Q, 3] -> [Q] in fp32."""

    def __init__(self, decoder: FieldDecoder, features: Tensor) -> None:
        if features.shape[0] != 1:
            raise ValueError(f"a field has one shape, got a batch of {features.shape[0]}")
        self.decoder = decoder
        self.k, self.v = decoder.keys(features)

    def __call__(self, points: Tensor) -> Tensor:  # [Q, 3] -> [Q]
        """Evaluate with attention to all latents."""
        return self.decoder(self.decoder.embed(points[None]), self.k, self.v)[0].float()

    @property
    def bytes_per_query(self) -> int:
        """Memory the layers hold at once for one point, in the dtype of the weights."""
        weight = self.decoder.query_proj.weight
        width, features = weight.shape
        ratio = self.decoder.params.field_mlp_ratio
        # Embedded positions in fp32 and cast; x, its norms, queries, attention and residuals;
        # the MLP's hidden layer before and after the GELU.
        return features * (4 + weight.itemsize) + width * weight.itemsize * (8 + 2 * ratio)

    def query_group(
        self,
        points: Tensor,  # [Q, 3]
        stride: int,
        chunk_size: int = 1 << 62,
    ) -> Tensor:  # [Q]
        """Evaluate with the keys most similar to every stride-th query; an approximation."""
        block = self.decoder.cross_attn_decoder
        sample = block.queries(self.decoder.embed(points[None, ::stride])).mean(2)
        similarity = (self.k @ sample[..., None]).squeeze(-1)  # [1, H, M]
        top = similarity.topk(num_top_keys(self.k.shape[2]), dim=-1).indices  # [1, H, G]
        index = top[..., None].expand(-1, -1, -1, self.k.shape[-1])
        k, v = self.k.gather(2, index), self.v.gather(2, index)
        chunks = points.split(min(chunk_size, len(points)))
        parts = [self.decoder(self.decoder.embed(part[None]), k, v)[0] for part in chunks]
        return torch.cat(parts).float()


def num_top_keys(num_latents: int) -> int:
    """Return how many keys the reference keeps for a group of queries."""
    return {3072: 1024, 512: 256}.get(num_latents, max(num_latents // 3, 1))


def _fourier(params: VAEParams) -> Callable[[Tensor], Tensor]:
    def embed(points: Tensor) -> Tensor:
        return fourier_features(points, params.num_freqs, include_pi=params.include_pi)

    return embed
