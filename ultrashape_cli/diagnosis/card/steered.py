"""A field that costs what the network's costs and has the surface of a sphere.

With random weights a field has no surface, or one everywhere; how many points a decoder asks for
would then say nothing of a shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ultrashape_cli.models.vae import Field, ShapeVAE

RADIUS = 0.75
"""Of a sphere whose area is that of a figurine in the cube [-1, 1]."""


class SteeredField:
    """Asks a network's field at every point, and answers with that of the sphere.

    Args:
        field: Of the network.
        width: Distance at which the answer saturates.
    """

    def __init__(self, field: Field, width: float) -> None:
        self.field = field
        self.width = width
        self.queries = 0
        """Points so far."""

    @property
    def bytes_per_query(self) -> int:
        """Memory of one point, as of the network's own field."""
        return self.field.bytes_per_query

    def __call__(self, points: Tensor) -> Tensor:  # [Q, 3] -> [Q]
        """Returns the field of the sphere; what is not finite in the network's stays so."""
        self.queries += len(points)
        answer = ((RADIUS - points.float().norm(dim=-1)) / self.width).clamp(-1, 1)
        return answer + 0.0 * self.field(points)


def steer(vae: ShapeVAE) -> None:
    """Lets an autoencoder decode all latents to the sphere, at its usual cost."""
    plain: Callable[[Tensor], Field] = vae.field
    vae.field = lambda features: SteeredField(plain(features), vae.params.truncation)  # type: ignore[assignment, method-assign, return-value]


def sphere_voxels(resolution: int, count: int, seed: int) -> Tensor:  # [1, M, 3]
    """Returns voxels that the sphere occupies; where it has too few, of the ball too."""
    from ultrashape_cli.models.voxels import occupied_voxels, select_voxels

    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(20 * count, 3, generator=generator)
    points *= RADIUS / points.norm(dim=-1, keepdim=True)
    occupied = occupied_voxels(points, resolution)
    if len(occupied) < count:
        depth = torch.rand(len(points), 1, generator=generator) ** (1 / 3)
        occupied = occupied_voxels(torch.cat([points, points * depth]), resolution)
    return select_voxels([occupied], count, generator)


def decoded_points(cells: int) -> int:
    """Returns about how many points the decoder asks for: 37.6 million of 1024 cells."""
    return math.ceil(37.6e6 * (cells / 1024) ** 2) + 64**3
