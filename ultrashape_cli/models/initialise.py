"""Starting weights of an autoencoder that trains from scratch: attention looks nearby.

With torch's own random weights, a query point and a surface point at the same place have unrelated
query and key vectors, and thousands of steps go by before attention has found out about places.
Here both are the same random projection of the position's Fourier features, so that their product
is largest where the places agree (a sum of cosines of the distance), in the encoder and, through
the latents, in the decoder.
"""

from __future__ import annotations

import torch
from torch import nn

from ultrashape_cli.models.vae import ShapeVAE

_POSITION_GAIN = 2.0
"""Of the position features against the other inputs."""
_SHARPNESS = 1.5
"""Gain of both head norms: neighbouring voxels then differ by a factor of about ten."""
_START_LOGVAR = -4.0


@torch.no_grad()
def attend_by_position(vae: ShapeVAE, generator: torch.Generator | None = None) -> None:
    """Changes fresh random weights in place; the architecture stays as it is.

    Args:
        vae: With encoder and decoder of equal width.
        generator: Source of randomness; None takes torch's global one.
    """
    encoder, decoder, channels = vae.encoder, vae.geo_decoder, vae.params.latent_channels
    query, data = encoder.input_proj_q, encoder.input_proj_kv
    query.weight.mul_(_POSITION_GAIN)
    data.weight[:, : query.in_features] = query.weight
    data.bias.copy_(query.bias)
    decoder.query_proj.weight.copy_(query.weight)
    decoder.query_proj.bias.copy_(query.bias)
    for attention in (encoder.cross_attn.attn, decoder.cross_attn_decoder.attn):
        keys = _orthogonal(attention.c_q.weight, generator)
        attention.c_q.weight.copy_(keys)
        # Rows of the fused matrix are grouped by head: its keys, then its values.
        heads = attention.num_heads
        attention.c_kv.weight.unflatten(0, (heads, 2, -1))[:, 0] = keys.unflatten(0, (heads, -1))
        for norm in (attention.attention.q_norm, attention.attention.k_norm):
            norm.get_parameter("weight").fill_(_SHARPNESS)
    # The latents start as a projection of the encoder's features, and the decoder as its inverse.
    projection = _orthogonal(vae.pre_kl.weight[:channels], generator)
    vae.pre_kl.weight[:channels] = projection
    vae.pre_kl.bias[:channels] = 0
    vae.pre_kl.weight[channels:] *= 0.1
    vae.pre_kl.bias[channels:] = _START_LOGVAR
    vae.post_kl.weight.copy_(projection.T)


def _orthogonal(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return nn.init.orthogonal_(torch.empty_like(like), generator=generator)
