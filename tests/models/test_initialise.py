"""Starting weights whose attention looks nearby."""

from __future__ import annotations

import torch

from ultrashape_cli.models.initialise import attend_by_position
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.vae import ShapeVAE


def _vae(*, local: bool) -> ShapeVAE:
    torch.manual_seed(0)
    vae = ShapeVAE(model_spec("tiny").vae).eval()
    if local:
        attend_by_position(vae)
    return vae


def _attended(q: torch.Tensor, k: torch.Tensor, distance: torch.Tensor) -> float:
    """Returns the mean distance of what queries attend to."""
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
    return float((weights * distance).sum(-1).mean())


@torch.no_grad()
def test_queries_read_surface_points_nearby() -> None:
    surface = torch.rand(1, 500, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    queries = surface[:, :40, :3] + 0.01
    distance = torch.cdist(queries, surface[..., :3])
    reach = {}
    for local in (False, True):
        encoder = _vae(local=local).encoder
        embed = encoder.input_proj_q(_fourier(queries))
        data = encoder.input_proj_kv(torch.cat([_fourier(surface[..., :3]), surface[..., 3:]], -1))
        k, _ = encoder.cross_attn.keys(data)
        reach[local] = _attended(encoder.cross_attn.queries(embed), k, distance)
    assert reach[True] < 0.5 * reach[False]


@torch.no_grad()
def test_field_queries_read_the_latents_nearby() -> None:
    points = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    surface = torch.cat([points, torch.zeros(1, 200, 4)], -1)
    distance = torch.cdist(points[:, :40], points)
    reach = {}
    for local in (False, True):
        vae = _vae(local=local)
        k, _ = vae.geo_decoder.keys(vae.decode(vae.encode(surface, points).mean))
        block = vae.geo_decoder.cross_attn_decoder
        reach[local] = _attended(block.queries(vae.geo_decoder.embed(points[:, :40])), k, distance)
    assert reach[True] < 0.75 * reach[False]


def test_latents_start_with_unit_scale_and_little_noise() -> None:
    vae = _vae(local=True)
    generator = torch.Generator().manual_seed(1)
    surface = torch.rand(1, 300, 7, generator=generator) * 2 - 1
    posterior = vae.encode(surface, surface[:, :100, :3])
    assert 0.5 < posterior.mean.std() < 2
    assert posterior.logvar.max() < -2


def _fourier(points: torch.Tensor) -> torch.Tensor:
    from ultrashape_cli.models.vae import _fourier as make

    return make(model_spec("tiny").vae)(points)
