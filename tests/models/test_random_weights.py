"""Random weights: of the right shapes, spread and place, and the same again."""

from __future__ import annotations

import pytest
import torch

from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import COMPONENTS, build, model_spec

TINY = model_spec("tiny")


def test_they_have_the_shapes_and_the_spread_of_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = random_networks(TINY), build(TINY, device="cpu")
    for network, other in zip(ours, theirs, strict=True):
        assert network is not None
        assert other is not None
        own = dict(network.named_parameters())
        for name, parameter in other.named_parameters():
            assert own[name].shape == parameter.shape
            assert own[name].requires_grad == parameter.requires_grad
            if parameter.ndim == 2 and parameter.numel() > 2000 and "token" not in name:
                spreads = [float(p.detach().std()) for p in (own[name], parameter)]
                assert spreads[0] == pytest.approx(spreads[1], rel=0.1)


def test_norms_begin_as_the_identity_and_biases_at_zero() -> None:
    (dit,) = (n for n in random_networks(TINY, components=("dit",)) if n is not None)
    norm = dit.final_layer.norm_final
    assert bool((norm.weight == 1).all())
    assert not bool(norm.bias.any())


def test_a_seed_and_a_dtype_are_kept() -> None:
    def draw(seed: int) -> torch.Tensor:
        vae = random_networks(TINY, components=("vae",), dtype=torch.bfloat16, seed=seed).vae
        assert vae is not None
        return vae.pre_kl.weight

    assert draw(0).dtype == torch.bfloat16
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_networks_not_asked_for_are_not_made() -> None:
    networks = random_networks(TINY, components=("vae",), vae_parts=("decoder",))
    assert [n for n in COMPONENTS if getattr(networks, n) is not None] == ["vae"]
    assert not hasattr(networks.vae, "encoder")
