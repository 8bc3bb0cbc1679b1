"""Latents of the frozen VAE, and the cache of them that a run may keep.

A cached entry is what the encoder said about one fixed draw of points and voxels of an asset: the
moments and the voxels, not a sample. Using it gives the same loss, bit for bit, as encoding that
draw again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ultrashape_cli.files import write_atomic


class Moments(NamedTuple):
    """The VAE's posterior of one asset at some voxels."""

    mean: Tensor  # [M, C]
    logvar: Tensor  # [M, C]
    voxels: Tensor  # [M, 3] integers


class LatentCache:
    """Moments by asset, variant and token count, one small file each.

    Args:
        folder: Of the run, so that another VAE or other settings never share it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, asset_id: str, variant: int, tokens: int) -> Moments | None:
        """Returns an entry, or None where it is not there or not readable."""
        try:
            found = load(self._path(asset_id, variant, tokens).read_bytes())
            return Moments(found["mean"], found["logvar"], found["voxels"].long())
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def write(self, asset_id: str, variant: int, tokens: int, moments: Moments) -> None:
        """Keeps an entry; processes that write the same one do no harm."""
        data = save(
            {
                "mean": moments.mean.cpu().contiguous(),
                "logvar": moments.logvar.cpu().contiguous(),
                "voxels": moments.voxels.to("cpu", torch.int16).contiguous(),
            }
        )
        write_atomic(self._path(asset_id, variant, tokens), lambda file: file.write(data))

    def _path(self, asset_id: str, variant: int, tokens: int) -> Path:
        # Folders by the first letters keep directories small.
        shard = asset_id[:2].replace(os.sep, "_")
        return self.folder / shard / f"{asset_id}-{variant}-{tokens}.safetensors"
