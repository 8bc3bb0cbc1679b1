"""FLOPs of a forward pass, counted from sizes: what MFU divides by time and peak.

A product of [n, k] and [k, m] counts 2 * n * k * m; softmax, norms and rotations count nothing, as
usual. The same numbers come from dispatching the real modules on fake tensors, at the token counts
of one plan; here they follow the tokens of each sample.
"""

from ultrashape_cli.models.dit import MLP_RATIO, DiTParams
from ultrashape_cli.models.embeddings import fourier_width
from ultrashape_cli.models.vae import VAEParams


def dit_flops(params: DiTParams, num_latents: int, context_tokens: int) -> int:
    """Return the FLOPs of one sample's forward pass through the DiT.

    Args:
        params: Sizes.
        num_latents: Latent tokens.
        context_tokens: Valid image tokens; 0 for the unconditional input, which skips attention
            to them.
    """
    w, tokens, context = params.width, num_latents + 1, context_tokens
    mlp = 2 * MLP_RATIO * w * w
    attended = w if context else 0  # the query projection of the cross-attention
    block = tokens * (4 * w * w + attended * w + w * w * bool(context) + mlp)
    block += 2 * context * params.context_channels * w
    block += 2 * tokens * tokens * w + 2 * tokens * context * w
    skips = params.depth - params.depth // 2 - 1
    routed = params.num_moe_layers * tokens * (params.moe_top_k * mlp + params.num_experts * w)
    ends = 2 * num_latents * params.in_channels * w + 2 * MLP_RATIO * w * w
    return 2 * (params.depth * block + skips * tokens * 2 * w * w + routed + ends)


def vae_flops(params: VAEParams, points: int, num_latents: int, queries: int) -> int:
    """Return the FLOPs of encoding, decoding and querying one shape.

    Args:
        params: Sizes.
        points: Surface points.
        num_latents: Latent tokens.
        queries: Field queries.
    """
    w, features = params.width, fourier_width(params.num_freqs)
    inner = w // params.field_downsample
    tokens = num_latents
    encoder = points * (features + params.num_point_features) * w + tokens * features * w
    encoder += points * 2 * w * w + tokens * 2 * w * w + 2 * tokens * points * w
    encoder += tokens * 8 * w * w
    layers = params.num_encoder_layers + params.num_decoder_layers
    blocks = layers * (12 * tokens * w * w + 2 * tokens * tokens * w)
    bottleneck = tokens * 3 * params.latent_channels * w
    field = tokens * 2 * inner * inner + queries * (features * inner + 2 * inner * inner + inner)
    field += queries * 2 * params.field_mlp_ratio * inner * inner + 2 * queries * tokens * inner
    return 2 * (encoder + blocks + bottleneck + field)


def dense_flops(params: DiTParams, num_latents: int, context_tokens: int) -> int:
    """Return the FLOPs of `dit_flops` where every expert runs on every token."""
    unused = params.num_experts - params.moe_top_k
    mlp = 2 * MLP_RATIO * params.width * params.width
    extra = params.num_moe_layers * (num_latents + 1) * unused * mlp
    return dit_flops(params, num_latents, context_tokens) + 2 * extra
