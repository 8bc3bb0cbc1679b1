"""Small files of a run with what its frozen networks said of an asset."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable
from glob import escape
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ultrashape_cli.errors import DiskError
from ultrashape_cli.files import write_atomic
from ultrashape_cli.formatting import cause

logger = logging.getLogger(__name__)

_SUM = "crc32"
"""Entry with the checksum of the others."""


class KeptTensors:
    """Tensors by asset and name, one file each.

    Args:
        folder: Of the run, so that other networks or other settings never share it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, asset_id: str, name: str) -> dict[str, Tensor] | None:
        """Returns an entry, on the host, or None where it is not there or not what was written."""
        path = self._path(asset_id, name)
        try:
            found = load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            logger.warning("made anew: `%s` cannot be read: %s", path, cause(error))
            return None
        if int(found.pop(_SUM, torch.tensor(-1))) != _sum(found):
            logger.warning("made anew: `%s` is damaged", path)
            return None
        return found

    def save(self, asset_id: str, name: str, tensors: dict[str, Tensor]) -> None:
        """Keeps an entry; processes that write the same one do no harm."""
        path = self._path(asset_id, name)
        held = {key: value.cpu().contiguous() for key, value in tensors.items()}
        data = save({**held, _SUM: torch.tensor(_sum(held))})
        try:
            write_atomic(path, lambda file: file.write(data))
        except (DiskError, OSError) as error:
            # A run can do without; whether the disk has room its checkpoints will tell.
            logger.warning("not kept: `%s`: %s", path, cause(error))

    def forget(self, asset_ids: Iterable[str]) -> None:
        """Removes the entries of assets that are no longer those they were made from."""
        for asset_id in asset_ids:
            for path in self._shard(asset_id).glob(f"{escape(asset_id)}-*.safetensors"):
                path.unlink(missing_ok=True)

    def _path(self, asset_id: str, name: str) -> Path:
        return self._shard(asset_id) / f"{asset_id}-{name}.safetensors"

    def _shard(self, asset_id: str) -> Path:
        # Folders by the first letters keep directories small.
        return self.folder / asset_id[:2].replace(os.sep, "_")


def _sum(tensors: dict[str, Tensor]) -> int:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, found)
    return found
