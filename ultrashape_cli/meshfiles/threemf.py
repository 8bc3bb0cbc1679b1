"""3MF: its archive, checked before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ultrashape_cli.errors import MeshError
from ultrashape_cli.meshfiles.scene import EXPORT_HINT

# An archive that would unpack to more than both is a bomb: XML packs 5 to 20 times.
_BOMB_BYTES, _BOMB_RATIO = 64 * 2**20, 100


def unpacked_bytes(path: Path, max_bytes: int) -> int:
    """Return the size of all files in an archive.

    Args:
        path: The archive.
        max_bytes: Above it nothing is read to look for damage.

    Raises:
        MeshError: It would unpack to a multiple of its size that no model has.
        ValueError: It is damaged.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
        if min(unpacked, max_bytes) > max(_BOMB_BYTES, _BOMB_RATIO * size):
            message = f"{path}: would unpack to {unpacked / size:.0f} times its size"
            raise MeshError(message, hint=EXPORT_HINT)
        # Reads in small pieces. A size that lies shows as a wrong checksum.
        if unpacked <= max_bytes and (damaged := archive.testzip()):
            raise ValueError(f"{damaged} in it is damaged")
    return unpacked
