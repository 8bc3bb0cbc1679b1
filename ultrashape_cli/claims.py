"""Who works on which asset: claims that runs on one or many machines see and that die with them.

A claim is a lock on one byte of `records/.claims`, at the offset that the id hashes to. The kernel
(on a shared folder: the file server) drops it when its process ends, however it ends, so there is
no lease to renew, no clock to trust and nothing to clean up.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ultrashape_cli.errors import DiskError
from ultrashape_cli.files import disk_errors


class Claims:
    """The claims of this run. Open only one per dataset and process (a rule of POSIX locks)."""

    def __init__(self, file: int, path: Path) -> None:
        self._file = file
        self._path = path

    def take(self, asset_id: str) -> bool:
        """Claims an asset; False where another process has it."""
        return self._lock(asset_id, take=True)

    def release(self, asset_id: str) -> None:
        """Gives an asset back."""
        self._lock(asset_id, take=False)

    def _lock(self, asset_id: str, *, take: bool) -> bool:
        import fcntl  # Windows has none

        operation = fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN
        try:
            fcntl.lockf(self._file, operation, 1, _offset(asset_id))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise DiskError(
                f"cannot lock `{self._path}`: {error.strerror}",
                hint="mount the shared folder with locks (NFS: without `nolock`, Lustre: `flock`)",
            ) from error
        return True


@contextmanager
def open_claims(root: Path) -> Iterator[Claims]:
    """Yields the claims on the dataset at `root` and drops all of them at the end."""
    path = root / "records" / ".claims"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield Claims(file, path)
    finally:
        with suppress(OSError):
            os.close(file)


def in_shard(asset_id: str, shard: int, num_shards: int) -> bool:
    """Says whether an asset belongs to shard 1 ... `num_shards`, by a hash of its id alone."""
    return _offset(asset_id) % num_shards == shard - 1


def _offset(asset_id: str) -> int:
    # 62 bits: two of 30,000 ids share an offset with a probability of 1e-10.
    digest = hashlib.sha256(asset_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
