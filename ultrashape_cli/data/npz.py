"""Arrays of an `.npz` file, read one at a time; checksums are left to `read_checked`."""

from __future__ import annotations

import hashlib
import math
import struct
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

READ_ERRORS = (OSError, ValueError, KeyError, EOFError, MemoryError, struct.error,
               zipfile.BadZipFile, NotImplementedError)  # fmt: skip
"""What a damaged file can raise here."""


_NAME_LENGTH_AT = 26
"""Offset, in the header before each member, of the lengths of its name and extra field."""


class ArrayFile:
    """The members of an `.npz` file, opened for each read, so that an object may be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self._members = {
                info.filename.removesuffix(".npy"): info for info in archive.infolist()
            }

    @property
    def names(self) -> set[str]:
        """Names of the arrays."""
        return set(self._members)

    def digest(self) -> str:
        """Returns a digest of all arrays, from the checksums that the file keeps of them."""
        members = sorted((name, info.CRC, info.file_size) for name, info in self._members.items())
        return hashlib.sha256(repr(members).encode()).hexdigest()[:16]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one array without reading it."""
        with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name]) as member:
            return _read_header(member)[0]

    def read(self, name: str) -> np.ndarray:
        """Returns one array; a stored member is one sequential read, a packed one is unpacked."""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return self.read_checked(name)
        with self.path.open("rb") as file:
            file.seek(info.header_offset + _NAME_LENGTH_AT)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            file.seek(name_bytes + extra_bytes, 1)
            shape, fortran, dtype = _read_header(file)
            count = math.prod(shape)
            if fortran or dtype.hasobject or info.file_size < dtype.itemsize * count:
                raise ValueError(f"`{name}` is not a plain array")
            return np.fromfile(file, dtype, count).reshape(shape)

    def read_checked(self, name: str) -> np.ndarray:
        """Returns one array after verifying its checksum."""
        with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name]) as member:
            return np.lib.format.read_array(member, allow_pickle=False)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
