"""Flows that start from the latents of a coarse mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch import Tensor, nn

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.models.dit import DiTOutput
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.models.voxels import voxel_centres
from ultrashape_cli.training.objectives.flow import FlowObjective
from ultrashape_cli.training.objectives.latents import LatentCache


class Recorder(nn.Module):
    """Keeps what it is asked, and says that nothing moves."""

    def forward(self, x: Tensor, t: Tensor, context, voxels: Tensor, lengths) -> DiTOutput:
        self.x, self.voxels = x, voxels
        return DiTOutput(torch.zeros_like(x), x.new_zeros(0), x.new_zeros((0, 4)))


@pytest.fixture
def batch() -> dict:
    draw = torch.Generator().manual_seed(0)

    def sphere(radius: float) -> Tensor:
        normals = nn.functional.normalize(torch.randn(2, 400, 3, generator=draw), dim=-1)
        return torch.cat([radius * normals, normals, torch.zeros(2, 400, 1)], dim=-1)

    image = torch.rand(2, 3, 56, 56, generator=draw) * 2 - 1
    return {
        "uid": ["a", "b"],
        "counter": torch.arange(2),
        "variant": torch.tensor([-1, -1]),
        "surface": sphere(0.8),
        "coarse": sphere(0.6),
        "image": image,
        "mask": torch.ones(2, 1, 56, 56),
    }


def _objective(field_loss: float = 0.0, **options) -> tuple[FlowObjective, ShapeVAE]:
    networks = ball_networks()
    assert networks.vae is not None
    settings = TrainConfig(num_latents=48, field_loss=field_loss)
    made = FlowObjective(
        networks.vae, networks.conditioner, settings, params=SMALL.dit, seed=0, **options
    )
    return made, networks.vae


@pytest.mark.parametrize("noisy", [True, False])
def test_the_path_leads_from_the_coarse_latents_to_the_true_ones(batch: dict, noisy: bool) -> None:
    objective, vae = _objective(start="coarse")
    net = Recorder()
    encoded = objective.encode(batch, noisy=noisy)
    for t, name in ((0.0, "coarse"), (1.0, "surface")):
        objective.losses(net, encoded, torch.full((2,), t))
        # All tokens lie on the coarse surface, whose radius is 0.6.
        centres = voxel_centres(net.voxels, 16)
        assert (centres.norm(dim=-1) - 0.6).abs().max() < 0.11
        expected = vae.encode(batch[name], centres).mean * vae.params.scale_factor
        assert torch.allclose(net.x, expected, atol=1e-5), name


def test_the_loss_of_standing_still_is_how_far_the_latents_are_apart(batch: dict) -> None:
    objective, _ = _objective(start="coarse")
    assert objective(Recorder(), batch).per_sample.mean() > 0
    same = {**batch, "coarse": batch["surface"]}
    assert objective(Recorder(), same).per_sample.abs().max() < 1e-10


def test_a_cache_gives_the_same_start(batch: dict, tmp_path) -> None:
    batch = {**batch, "variant": torch.tensor([0, 1])}
    plain, _ = _objective(start="coarse")
    cached, _ = _objective(start="coarse", cache=LatentCache(tmp_path))
    expected = plain(Recorder(), batch).per_sample
    for _ in range(2):
        assert torch.equal(cached(Recorder(), batch).per_sample, expected)
    assert len(list(tmp_path.rglob("*-48.safetensors"))) == 2


def test_only_a_model_that_starts_from_the_mesh_encodes_it() -> None:
    assert SMALL.inference_parts() == ("decoder",)
    assert replace(SMALL, start="coarse").inference_parts() == ("encoder", "decoder")


def test_the_decoded_field_counts_where_asked(batch: dict) -> None:
    draw = torch.Generator().manual_seed(1)
    points = torch.rand(2, 50, 3, generator=draw) * 2 - 1
    distance = points.norm(dim=-1, keepdim=True) - 0.8
    for name in ("near", "near_curvature", "space"):
        batch[name] = torch.cat([points, distance], dim=-1)
    objective, vae = _objective(start="coarse", field_loss=3.0)
    plain, _ = _objective(start="coarse")
    found, without = (made(Recorder(), batch) for made in (objective, plain))
    assert torch.equal(found.per_sample, without.per_sample)
    error = found.parts["field_loss"]
    assert found.total == pytest.approx(float(without.total + 3 * error), rel=1e-6)
    # It is that of where the path ends: as nothing moves, of the point it is asked at.
    encoded = objective.encode(batch, noisy=True)
    net = Recorder()
    last = objective.losses(net, encoded, torch.ones(2)).parts["field_loss"]
    features = vae.decode(net.x / vae.params.scale_factor)
    field = vae.query_field(features, points)
    target = (-distance[..., 0] / vae.params.truncation).clamp(-1, 1)
    expected = (field - target).square().mean() + (field - target).abs().mean()
    assert float(last) == pytest.approx(float(expected), rel=1e-5)


def test_gradients_reach_the_network_through_the_frozen_decoder(batch: dict) -> None:
    for name in ("near", "near_curvature", "space"):
        batch[name] = torch.rand(2, 20, 4)

    class Shift(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.full((8,), 0.1))

        def forward(self, x: Tensor, *rest) -> DiTOutput:
            return super().forward(x, *rest)._replace(velocity=self.by.expand_as(x))

    objective, vae = _objective(start="coarse", field_loss=1.0)
    net = Shift()
    encoded = objective.encode(batch, noisy=True)
    total = objective.losses(net, encoded, torch.zeros(2)).total
    (both,) = torch.autograd.grad(total, net.by)
    plain, _ = _objective(start="coarse")
    (alone,) = torch.autograd.grad(plain.losses(net, encoded, torch.zeros(2)).total, net.by)
    assert (both - alone).abs().max() > 1e-6
    assert all(parameter.grad is None for parameter in vae.parameters())
