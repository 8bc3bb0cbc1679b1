"""Several images as one context: their tokens behind each other, each told from where it was seen.

Legend: B samples, V views of all samples, L tokens, X context channels, F camera features.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ultrashape_cli.models.conditioner import PADDING

NUM_FEATURES = 4
EMBEDDER = "view_embedder"
"""Name of the layer in the network."""


class JoinedViews(NamedTuple):
    """The views of each sample as one context."""

    tokens: Tensor  # [B, L, X], valid ones first, padded with -1
    lengths: list[int]
    """Valid tokens of each sample."""
    cameras: Tensor  # [B, L, F], zero for padding


def camera_features(directions: Tensor) -> Tensor:  # [..., 2] -> [..., F]
    """Return what the network is told of cameras: of the front, 0, 0, nothing but zeros.

    `directions` are azimuth and elevation in degrees, in the frame of the voxels: the front is
    +z, azimuth 90 is seen from +x, elevation is positive above. An image of the front alone is
    therefore what it was before there were views, whatever the embedding has learned.
    """
    angles = torch.deg2rad(directions)
    # Sines then cosines of both angles; of the cosines what they lack of those of the front.
    return torch.cat([angles.sin(), angles.cos() - 1], dim=-1)


def view_embedder(channels: int) -> nn.Linear:
    """Return a layer from camera features to context channels; it starts at zero, without bias."""
    layer = nn.Linear(NUM_FEATURES, channels, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def join_views(
    tokens: Tensor | Sequence[Tensor],  # [V, L, X], or V of [L, X], valid ones first
    lengths: Sequence[int],  # V
    cameras: Tensor,  # [V, F]
    counts: Sequence[int],  # B, views of each sample, which follow each other
) -> JoinedViews:
    """Return the contexts of samples that show several views each."""
    if sum(counts) != len(tokens):
        raise ValueError(f"{len(tokens)} views for samples of {list(counts)}")
    parts, sources = [], []
    for first, last in pairwise(accumulate(counts, initial=0)):
        views = range(first, last)
        parts.append(torch.cat([tokens[v][: lengths[v]] for v in views]))
        sources.append(torch.cat([cameras[v].expand(lengths[v], -1) for v in views]))
    return JoinedViews(
        pad_sequence(parts, batch_first=True, padding_value=PADDING),
        [len(part) for part in parts],
        pad_sequence(sources, batch_first=True),
    )
