"""Several images as one context, and the embedding of their cameras."""

from __future__ import annotations

import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch import Tensor

from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.view_embedding import camera_features, join_views

CHANNELS = SMALL.dit.context_channels
FRONT, SIDE, BACK = camera_features(torch.tensor([[0.0, 0.0], [90.0, 20.0], [180.0, 0.0]]))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(2, 30, SMALL.dit.in_channels)
T = torch.tensor([0.2, 0.7])
VOXELS = torch.randint(16, (2, 30, 3), generator=torch.Generator().manual_seed(3))
TOKENS = drawn(4, 9, CHANNELS, seed=1)
"""Of four views, of which the first is alone and the others belong together."""
LENGTHS = [7, 9, 5, 6]


def network(trained: bool) -> RefineDiT:
    dit = ball_networks().dit
    assert dit is not None
    dit.add_view_embedder()
    assert dit.view_embedder is not None
    if trained:
        dit.view_embedder.weight = torch.nn.Parameter(drawn(CHANNELS, 4, seed=2))
    return dit


def test_the_front_is_told_by_zeros_and_no_other_direction() -> None:
    assert not FRONT.any()
    assert SIDE.tolist() == pytest.approx([1, 0.3420, -1, -0.0603], abs=1e-4)
    around = torch.stack([torch.arange(0, 360, 15.0), torch.zeros(24)], dim=1)
    apart = torch.cdist(*[camera_features(around)] * 2) + 9 * torch.eye(24)
    assert apart.min() > 0.25


def test_joined_views_follow_each_other_without_their_padding() -> None:
    cameras = torch.stack([FRONT, FRONT, SIDE, BACK])
    tokens, lengths, told = join_views(TOKENS, LENGTHS, cameras, [1, 3])
    assert lengths == [7, 20]
    assert torch.equal(tokens[0, :7], TOKENS[0, :7])
    assert (tokens[0, 7:] == -1).all()
    assert torch.equal(tokens[1], torch.cat([TOKENS[1], TOKENS[2, :5], TOKENS[3, :6]]))
    assert not told[0].any()
    assert torch.equal(told[1], torch.cat([c.expand(n, 4) for c, n in zip(
        (FRONT, SIDE, BACK), LENGTHS[1:], strict=True)]))  # fmt: skip
    with pytest.raises(ValueError, match="4 views for samples of"):
        join_views(TOKENS, LENGTHS, cameras, [1, 2])


@torch.no_grad()
def test_an_untrained_embedding_changes_nothing() -> None:
    plain = ball_networks().dit
    assert plain is not None
    tokens, lengths, told = join_views(
        TOKENS, LENGTHS, torch.stack([FRONT, FRONT, SIDE, BACK]), [1, 3]
    )
    wanted = plain(X, T, tokens, VOXELS, lengths).velocity
    assert torch.equal(network(False)(X, T, tokens, VOXELS, lengths, told).velocity, wanted)


@torch.no_grad()
def test_a_trained_one_leaves_the_front_alone_as_it_is() -> None:
    dit = network(True)
    alone = join_views(TOKENS[:2], LENGTHS[:2], torch.stack([FRONT, FRONT]), [1, 1])
    wanted = dit(X, T, TOKENS[:2], VOXELS, LENGTHS[:2]).velocity
    found = dit(X, T, alone.tokens, VOXELS, alone.lengths, alone.cameras).velocity
    assert torch.equal(found, wanted)
    turned = dit(X, T, TOKENS[:2], VOXELS, LENGTHS[:2], BACK.expand(2, 9, 4)).velocity
    assert not torch.allclose(turned, wanted, atol=1e-3)
    # As keys that are kept, too.
    keys = dit.context_keys(dit.seen_from(TOKENS[:2], BACK.expand(2, 9, 4)))
    assert torch.allclose(dit(X, T, keys, VOXELS, LENGTHS[:2]).velocity, turned, atol=1e-5)


def test_the_gradient_reaches_an_embedding_of_zeros() -> None:
    dit = network(False)
    assert dit.view_embedder is not None
    dit.view_embedder.requires_grad_(True)
    dit(
        X, T, TOKENS[:2], VOXELS, LENGTHS[:2], BACK.expand(2, 9, 4)
    ).velocity.square().sum().backward()
    gradient = dit.view_embedder.weight.grad
    assert gradient is not None
    # Seen from behind, the sine of the azimuth and all of the elevation are nothing.
    assert gradient[:, 2].abs().min() > 0
    assert gradient[:, [1, 3]].abs().max() == 0


def test_a_network_without_it_refuses_cameras() -> None:
    dit = ball_networks().dit
    assert dit is not None
    with pytest.raises(ValueError, match="not trained with several views"):
        dit(X, T, TOKENS[:2], VOXELS, None, BACK.expand(2, 9, 4))
