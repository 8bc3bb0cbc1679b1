"""Networks with random weights whose decoder has a surface: a ball-like one, without training."""

from dataclasses import replace

import torch

from ultrashape_cli.models.conditioner import ConditionerParams
from ultrashape_cli.models.dit import DiTParams
from ultrashape_cli.models.registry import ModelSpec, Networks, build, model_spec
from ultrashape_cli.models.vae import ShapeVAE, VAEParams

SMALL = replace(
    model_spec("tiny"),
    image_size=56,
    start="noise",
    vae=VAEParams(
        num_latents=64,
        width=32,
        num_heads=2,
        latent_channels=8,
        num_freqs=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        voxel_resolution=16,
        truncation=0.1,
    ),
    dit=DiTParams(
        in_channels=8,
        width=48,
        context_channels=16,
        depth=5,
        num_heads=2,
        num_moe_layers=2,
        num_experts=4,
        voxel_resolution=16,
    ),
    conditioner=ConditionerParams(
        width=16, num_layers=1, num_heads=2, position_grid=4, image_size=56
    ),
)
"""A model of a few thousand weights."""

FAST = [
    *("--set", "refine.steps=3", "--set", "refine.grid_resolution=32"),
    *("--set", "refine.tokens=64", "--set", "refine.surface_points=2000"),
]
"""Options of `ushape refine` for a result within a second."""


def ball_networks(spec: ModelSpec = SMALL, seed: int = 0) -> Networks:
    """Return seeded networks of a model whose field is about a ball, dented by the latents."""
    torch.manual_seed(seed)
    networks = build(spec, device="cpu")
    assert networks.vae is not None
    make_ball(networks.vae)
    for module in networks:
        assert module is not None
        module.eval().requires_grad_(False)
    return networks


@torch.no_grad()
def make_ball(vae: ShapeVAE) -> None:
    """Set the field decoder to cos x + cos y + cos z - 2.3, squashed, plus a little attention."""
    decoder = vae.geo_decoder
    projection = decoder.query_proj
    projection.weight.zero_()
    projection.bias.zero_()
    frequencies = (projection.in_features - 3) // 6
    cosines = [3 + 3 * frequencies + axis * frequencies for axis in range(3)]
    # Two channels of opposite sign, and two constant ones: the last norm then keeps the order.
    projection.weight[0, cosines] = 1
    projection.weight[1, cosines] = -1
    projection.bias[:4] = torch.tensor([-2.3, 2.3, 1.0, -1.0])
    block = decoder.cross_attn_decoder
    block.attn.c_proj.weight.mul_(0.3)
    block.attn.c_proj.bias.zero_()
    block.mlp.c_proj.weight.zero_()
    block.mlp.c_proj.bias.zero_()
    decoder.output_proj.weight.zero_()
    decoder.output_proj.bias.zero_()
    decoder.output_proj.weight[0, :2] = torch.tensor([1.0, -1.0])
