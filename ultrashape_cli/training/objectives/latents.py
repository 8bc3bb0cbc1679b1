"""Latents of the frozen VAE, and the cache of them that a run may keep.

A cached entry is what the encoder said about one fixed draw of points and voxels of an asset: the
moments and the voxels, not a sample. Using it gives the same loss, bit for bit, as encoding that
draw again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import escape
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

    def forget(self, asset_ids: Iterable[str]) -> None:
        """Removes the entries of assets whose samples are no longer those they were made from."""
        for asset_id in asset_ids:
            for path in self._shard(asset_id).glob(f"{escape(asset_id)}-*.safetensors"):
                path.unlink(missing_ok=True)

    def _path(self, asset_id: str, variant: int, tokens: int) -> Path:
        return self._shard(asset_id) / f"{asset_id}-{variant}-{tokens}.safetensors"

    def _shard(self, asset_id: str) -> Path:
        # Folders by the first letters keep directories small.
        return self.folder / asset_id[:2].replace(os.sep, "_")
