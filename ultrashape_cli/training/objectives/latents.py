"""Latents of the frozen VAE, and the cache of them that a run may keep.

A cached entry is what the encoder said about one fixed draw of points and voxels of an asset: the
moments and the voxels, not a sample. Using it gives the same loss, bit for bit, as encoding that
draw again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ultrashape_cli.training.objectives.kept import KeptTensors


class Moments(NamedTuple):
    """The VAE's posterior of one asset at some voxels."""

    mean: Tensor  # [M, C]
    logvar: Tensor  # [M, C]
    voxels: Tensor  # [M, 3] integers


class LatentCache(KeptTensors):
    """Moments by asset, variant and token count."""

    def read(self, asset_id: str, variant: int, tokens: int) -> Moments | None:
        """Returns an entry, or None where it is not there or not readable."""
        found = self.load(asset_id, f"{variant}-{tokens}")
        if found is None or not found.keys() >= set(Moments._fields):
            return None
        return Moments(found["mean"], found["logvar"], found["voxels"].long())

    def write(self, asset_id: str, variant: int, tokens: int, moments: Moments) -> None:
        """Keeps an entry."""
        small = moments._replace(voxels=moments.voxels.to("cpu", torch.int16))
        self.save(asset_id, f"{variant}-{tokens}", small._asdict())
