"""The parts are the networks, cut: they need no runtime to be compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ball_networks import ball_networks
from exporting.mini import MINI

from ultrashape_cli.data.images import preprocess_inference
from ultrashape_cli.exporting.graphs import eager_graph, graph_networks
from ultrashape_cli.exporting.parts import PARTS, make_part
from ultrashape_cli.models.flops import dense_flops, dit_flops
from ultrashape_cli.models.registry import build, model_spec


def test_the_conditioner_keeps_and_computes_the_tokens_that_the_network_does():
    spec = model_spec("tiny")  # resizes from 256 to 224 pixels
    torch.manual_seed(0)
    conditioner = build(spec, device="cpu", components=("conditioner",)).conditioner
    rgba = np.random.default_rng(0).integers(0, 256, (90, 80, 4), np.uint8)
    rgba[..., 3] = 255 * (np.hypot(*np.ogrid[-45:45, -40:40]) < 30)
    image, mask = (each[None] for each in preprocess_inference(rgba, spec.image_size))
    part = make_part("conditioner", build(spec)._replace(conditioner=conditioner), spec)
    tokens, keep = part(image, mask)
    expected, lengths = conditioner.encode(image, mask)
    assert lengths == [int(keep.sum())]
    assert 20 < lengths[0] < 200
    # The resize by a product rounds otherwise.
    assert torch.allclose(tokens[:, keep[0]], expected, atol=1e-5)


@pytest.fixture(scope="module")
def twins():
    networks = ball_networks(MINI)
    parts = {name: make_part(name, networks, MINI) for name in PARTS}
    return networks, graph_networks("onnx", {n: eager_graph(p) for n, p in parts.items()}, MINI)


def test_a_zero_token_is_no_image_and_two_samples_are_two_passes(twins):
    networks, graphs = twins
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, MINI.dit.in_channels, generator=generator)
    context = torch.randn(2, 7, MINI.dit.context_channels, generator=generator)
    voxels = torch.randint(0, 16, (2, 9, 3), generator=generator)
    t = torch.tensor([0.2, 0.7])
    plain = networks.dit(x, t, None, voxels).velocity
    assert torch.allclose(graphs.dit(x, t, None, voxels).velocity, plain, atol=1e-6)
    expected = networks.dit(x, t, context, voxels, [7, 4]).velocity
    assert torch.allclose(graphs.dit(x, t, context, voxels, [7, 4]).velocity, expected, atol=1e-6)
    assert (expected - plain).abs().max() > 1e-3


def test_the_autoencoder_is_the_one_of_the_network(twins):
    networks, graphs = twins
    generator = torch.Generator().manual_seed(0)
    surface = torch.randn(1, 50, 7, generator=generator)
    places = torch.rand(1, 12, 3, generator=generator) * 2 - 1
    mean = networks.vae.encode(surface, places).mean
    assert torch.equal(graphs.vae.encode(surface, places).mean, mean)
    points = torch.rand(30, 3, generator=generator) * 2 - 1
    expected = networks.vae.field(networks.vae.decode(mean))(points)
    assert torch.allclose(graphs.vae.field(graphs.vae.decode(mean))(points), expected, atol=1e-6)


def test_the_cost_of_dense_experts_is_what_the_readme_says():
    params = model_spec("ultrashape-1.0").dit
    for tokens, share in ((8_192, 0.41), (32_768, 0.24)):
        extra = dense_flops(params, tokens, 5_330) / dit_flops(params, tokens, 5_330) - 1
        assert round(extra, 2) == share
