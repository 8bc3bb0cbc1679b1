"""Weights that lie in storage as `ushape weights push` leaves them, with their hashes beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ultrashape_cli.errors import UsageError
from ultrashape_cli.hub import Progress, RemoteFile
from ultrashape_cli.packing.layout import Piece
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import fetch

SUMS = "SHA256SUMS"
"""File with the hashes, as `sha256sum` reads it."""


def find_elsewhere(address: str, name: str, revision: str | None = None) -> RemoteFile:
    """Returns size and hash of a file at an address.

    Raises:
        UsageError: A revision is asked for, which only the Hub has.
        StorageError: It cannot be reached, or is not there.
    """
    if revision:
        raise UsageError("`--revision` is of repositories on the Hub", hint="leave it out")
    place = Location(address)
    size = place.size(name)
    if size is None:
        raise StorageError(f"`{address.rstrip('/')}/{name}` is not there",
                           hint="ushape weights push WEIGHTS ADDRESS")  # fmt: skip
    digest = read_sums(place).get(name, "")
    return RemoteFile(address, name, f"{address.rstrip('/')}/{name}", size, digest, None)


def read_sums(place: Location) -> dict[str, str]:
    """Returns the hashes that a place names, by file."""
    lines = (place.read(SUMS) or b"").decode(errors="replace").splitlines()
    return {line[66:]: line[:64] for line in lines}


def require_free(place: Location, files: Mapping[str, Path], digests: Mapping[str, str]) -> None:
    """Raises UsageError where sending files would replace others.

    What a killed process has sent of the same ones, and what is named there by the same hash, is
    none.

    Args:
        place: Where they go.
        files: By their names there.
        digests: Hashes of some of them.
    """
    there, sums = place.sizes(""), read_sums(place)
    others = [name for name, digest in digests.items() if sums.get(name, digest) != digest]
    if SUMS in there and not sums.keys() & digests.keys():
        others.append(SUMS)
    if not sums:
        others += [name for name, path in files.items()
                   if there.get(name, path.stat().st_size) != path.stat().st_size]  # fmt: skip
    if others:
        raise UsageError(
            f"`{place.address.rstrip('/')}/{others[0]}` is another file",
            hint="choose another place; --force replaces it",
        )


def download_elsewhere(
    remote: RemoteFile,
    target: Path,
    *,
    expected_sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Brings a file, or the rest of it, and puts it in place when its hash is right.

    Raises:
        UsageError: No hash is known.
        StorageError: It cannot be reached.
        PackError: What came has another hash.
    """
    if not expected_sha256:
        raise UsageError(f"`{remote.repo}` has no {SUMS} with {remote.name}", hint="--sha256 HASH")
    piece = Piece(remote.name, remote.size, expected_sha256)
    fetch(Location(remote.repo), piece, target, lambda done: progress(done, remote.size),
          hint=f"ushape weights push WEIGHTS {remote.repo} --force")  # fmt: skip
    return expected_sha256
