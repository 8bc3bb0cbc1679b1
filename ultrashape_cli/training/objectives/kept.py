"""Small files of a run with what its frozen networks said of an asset."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import escape
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ultrashape_cli.files import write_atomic


class KeptTensors:
    """Tensors by asset and name, one file each.

    Args:
        folder: Of the run, so that other networks or other settings never share it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, asset_id: str, name: str) -> dict[str, Tensor] | None:
        """Returns an entry, on the host, or None where it is not there or not readable."""
        try:
            return load(self._path(asset_id, name).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None

    def save(self, asset_id: str, name: str, tensors: dict[str, Tensor]) -> None:
        """Keeps an entry; processes that write the same one do no harm."""
        data = save({key: value.cpu().contiguous() for key, value in tensors.items()})
        write_atomic(self._path(asset_id, name), lambda file: file.write(data))

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
