"""Voxels as a coarse mesh would give them: training sees clean meshes, inference does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ultrashape_cli.devices import upload

_NEIGHBOURS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


@dataclass(frozen=True, slots=True)
class VoxelNoise:
    """Shares of the occupied voxels that are left out, added beside, or moved by one.

    All zero, the voxels are those of the clean mesh, as in the reference.
    """

    drop: float = 0.0
    add: float = 0.0
    jitter: float = 0.0

    def __bool__(self) -> bool:
        return self.drop > 0 or self.add > 0 or self.jitter > 0

    def apply(self, voxels: Tensor, resolution: int, generator: torch.Generator) -> Tensor:
        """Returns other voxels, sorted and without doubles; at least one stays.

        Args:
            voxels: [V, 3] integers in 0..resolution-1.
            resolution: Voxels along one side.
            generator: CPU generator of the sample.
        """
        count = len(voxels)
        device = voxels.device
        keep = torch.rand(count, generator=generator) >= self.drop
        keep[int(torch.randint(count, (1,), generator=generator))] = True
        moved = torch.rand(count, generator=generator) < self.jitter
        steps = _random_steps(count, generator) * moved[:, None]
        beside = torch.randint(count, (round(self.add * count),), generator=generator)
        sideways = _random_steps(len(beside), generator)
        added = voxels[upload(beside, device)] + upload(sideways, device)
        # Rows, not a mask: the device would have to say how many are left.
        rows = keep.nonzero()[:, 0]
        kept = voxels[upload(rows, device)] + upload(steps[rows], device)
        return torch.cat([kept, added]).clamp(0, resolution - 1).unique(dim=0)


def _random_steps(count: int, generator: torch.Generator) -> Tensor:
    choice = torch.randint(len(_NEIGHBOURS), (count,), generator=generator)
    return torch.tensor(_NEIGHBOURS)[choice]
