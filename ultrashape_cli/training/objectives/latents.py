"""Latents of the frozen VAE, and the cache of them that a run may keep.

A cached entry is what the encoder said about one fixed draw of points and voxels of an asset: the
moments and the voxels, not a sample. Using it gives the same loss, bit for bit, as encoding that
draw again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ultrashape_cli.devices import upload
from ultrashape_cli.training.objectives.kept import KeptTensors


class Moments(NamedTuple):
    """The VAE's posterior of one asset at some voxels."""

    mean: Tensor  # [M, C]
    logvar: Tensor  # [M, C]; empty where nothing is open, and the mean is scaled already
    voxels: Tensor  # [M, 3] integers
    start: Tensor | None = None  # [M, C], mean of the coarse mesh's, where the flow starts there

    def on(self, device: torch.device) -> Moments:
        """Returns the same on a device."""
        start = None if self.start is None else upload(self.start, device)
        mean, logvar, voxels = (upload(x, device) for x in (self.mean, self.logvar, self.voxels))
        return Moments(mean, logvar, voxels, start)


class LatentCache(KeptTensors):
    """Moments by asset, variant and token count."""

    def read(self, asset_id: str, variant: int, tokens: int) -> Moments | None:
        """Returns an entry, or None where it is not there or not readable."""
        found = self.load(asset_id, f"{variant}-{tokens}")
        if found is None or not found.keys() >= {"mean", "logvar", "voxels"}:
            return None
        voxels = found["voxels"].long()
        return Moments(found["mean"], found["logvar"], voxels, found.get("start"))

    def write(self, asset_id: str, variant: int, tokens: int, moments: Moments) -> None:
        """Keeps an entry."""
        small = moments._replace(voxels=moments.voxels.to("cpu", torch.int16))
        kept = {key: value for key, value in small._asdict().items() if value is not None}
        self.save(asset_id, f"{variant}-{tokens}", kept)
