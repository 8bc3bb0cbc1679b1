"""Weights from and to the Hugging Face Hub, with checksums and licence acceptance.

`HF_ENDPOINT` names another server, `HF_TOKEN` the account. huggingface_hub is imported on use.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ultrashape_cli.errors import CheckpointError, UsageError, UShapeError
from ultrashape_cli.files import disk_errors, read_json, write_json
from ultrashape_cli.formatting import cause

Progress = Callable[[int, int], None]
"""Bytes done, bytes in total."""

_BLOCK = 1 << 20
_POLL_S = 0.25
_NETWORK_PACKAGES = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "huggingface_hub"}


class HubError(UShapeError):
    """The Hub cannot be reached, refuses, or lacks what was asked for."""


class HubRefusal(HubError):
    """The Hub answered, and the same question will get the same answer."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of released weights that a user must accept before the first download."""

    name: str
    url: str
    limits: str
    card_id: str
    """`license_name` of a model card"""


LICENCES = {
    licence.name: licence
    for licence in (
        Licence(
            name="Tencent Hunyuan 3D 2.1 Community License",
            url="https://huggingface.co/tencent/Hunyuan3D-2.1/blob/main/LICENSE",
            limits="Territory: worldwide except the European Union, the United Kingdom and South "
            "Korea. There the licence grants no right to use the weights or what they produce.",
            card_id="tencent-hunyuan-community",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository."""

    repo: str
    name: str
    url: str
    size: int
    etag: str
    commit: str | None

    @property
    def sha256(self) -> str | None:
        """The hash the Hub keeps of large files; None for small ones."""
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


def sha256_file(path: Path, progress: Progress | None = None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(16 * _BLOCK):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()


def _acceptance_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ushape" / "licences.json"


def is_accepted(licence: Licence) -> bool:
    """Say whether this user has accepted the licence before."""
    accepted = read_json(_acceptance_file())
    return isinstance(accepted, dict) and accepted.get(licence.name) == licence.url


def accept(licence: Licence) -> Path:
    """Remember the acceptance in the user's configuration folder; return the file."""
    path = _acceptance_file()
    accepted = read_json(path)
    write_json(
        path, {**(accepted if isinstance(accepted, dict) else {}), licence.name: licence.url}
    )
    return path


def find_remote(repo: str, name: str, revision: str | None = None) -> RemoteFile:
    """Return size, hash and address of a file on the Hub.

    Raises:
        HubError: Unreachable, forbidden or absent.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

    with _hub_errors(f"{repo}/{name}", _page(repo)):
        url = hf_hub_url(repo, name, revision=revision, endpoint=_endpoint())
        found = get_hf_file_metadata(url, token=get_token())
    if found.size is None or found.etag is None:
        raise HubError(f"{url}: the server names neither size nor hash of the file")
    return RemoteFile(repo, name, found.location or url, found.size, found.etag, found.commit_hash)


def download(
    remote: RemoteFile,
    target: Path,
    *,
    expected_sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Download a file, or the rest of it, verify it and put it in place; return its SHA-256.

    An interrupted download leaves a partial file that the next call goes on with.

    Raises:
        HubError: The connection failed.
        CheckpointError: Size or hash are wrong; the partial file is removed.
        DiskError: Full or read-only storage.
    """
    # The name carries the hash: a changed remote file starts anew.
    tag = hashlib.sha256(f"{remote.repo}/{remote.etag}".encode()).hexdigest()[:12]
    partial = target.with_name(f".{target.name}.{tag}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists() and partial.stat().st_size > remote.size:
            partial.unlink()
        with partial.open("ab") as file, _reporting(partial, remote.size, progress):
            _fetch(remote, file)
        size = partial.stat().st_size
        digest = sha256_file(partial)
        wanted = expected_sha256 or remote.sha256
        if size != remote.size or (wanted is not None and digest != wanted):
            partial.unlink()
            raise CheckpointError(
                f"{target}: the download is damaged: expected {remote.size} bytes with sha256 "
                f"{wanted or 'unknown'}, found {size} bytes with {digest}",
                hint="run the same command again",
            )
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    progress(remote.size, remote.size)
    return digest


def _fetch(remote: RemoteFile, file: Any) -> None:
    """Append what is missing; goes on after cut connections as long as each brings something."""
    from huggingface_hub import get_token
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    disable_progress_bars()
    # The token belongs to the Hub, not to the storage server a download is sent on to.
    own = urlsplit(remote.url).netloc == urlsplit(_endpoint() or "https://huggingface.co").netloc
    headers = build_hf_headers(token=get_token() if own else False)
    while (start := file.tell()) < remote.size:
        try:
            with _hub_errors(f"{remote.repo}/{remote.name}", _page(remote.repo)):
                http_get(
                    remote.url, file, resume_size=start, headers=headers, expected_size=remote.size
                )
        except HubError as error:
            # The storage server refuses addresses that are too old; the next call asks for one.
            if own and isinstance(error, HubRefusal):
                raise
            file.flush()
            if file.tell() > start:
                continue
            raise HubError(
                f"{error.message} (after {file.tell()} of {remote.size} bytes)",
                hint="run the same command again: it goes on where it stopped",
            ) from error


def upload(
    repo: str,
    files: dict[str, Path | bytes],
    *,
    message: str,
    private: bool = True,
    revision: str | None = None,
    kind: str = "model",
) -> str:
    """Create the repository where absent, commit the files to it; return the commit's address.

    Args:
        repo: `OWNER/NAME`.
        files: Name in the repository -> content.
        message: Of the commit.
        private: Of a new repository.
        revision: Branch; the default one if None.
        kind: Of repository, `model` or `dataset`.

    Raises:
        HubError: Unreachable, or the account may not write there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi(endpoint=_endpoint())
    with _hub_errors(repo):
        api.create_repo(repo, private=private, exist_ok=True, repo_type=kind)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in files.items()
        ]
        commit = api.create_commit(
            repo,
            operations=operations,
            commit_message=message,
            revision=revision,
            repo_type=kind,
        )
    return str(commit.commit_url)


def is_public(repo: str, *, kind: str = "model") -> bool:
    """Say whether anybody may read a repository; one that is not there yet is not public.

    Raises:
        HubError: The Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with _hub_errors(repo):
        try:
            return HfApi(endpoint=_endpoint()).repo_info(repo, repo_type=kind).private is False
        except RepositoryNotFoundError:
            return False


def _endpoint() -> str | None:
    # huggingface_hub reads the variable once, at its import.
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextmanager
def _reporting(path: Path, total: int, progress: Progress) -> Iterator[None]:
    """Report the growth of a file while the body runs; works with every huggingface_hub."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            with suppress(OSError):
                progress(path.stat().st_size, total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _page(repo: str) -> str:
    """Return the page of a repository, where its licence is accepted."""
    return f"{_endpoint() or 'https://huggingface.co'}/{repo}"


@contextmanager
def _hub_errors(what: str, page: str | None = None) -> Iterator[None]:
    """Turn errors of huggingface_hub and of the network below it into one a user can act on.

    Args:
        what: What was asked for.
        page: Of the repository that is read; None for one that is written.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UsageError(
            f"`{what}` is no repository name", hint="owner/name, e.g. me/shoes"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        login = "hf auth login, or set HF_TOKEN"
        if page is None:
            no_access = f"this account may not write there (the Hub answered {status})"
        else:
            no_access = (
                f"the Hub gives it to accounts only that accepted the licence on {page}, or there "
                f"is no such repository (it answered {status})"
            )
            login = f"accept the licence on {page}, then: {login}"
        if status in (401, 403):
            raise HubRefusal(f"{what}: {no_access}", hint=login) from error
        if status == 404:
            hint = "check the names of repository, file and revision"
            raise HubRefusal(f"{what}: not found on the Hub", hint=hint) from error
        raise HubError(
            f"{what}: the Hub answered {status}", hint="try again in some minutes"
        ) from error
    except Exception as error:
        # An upload wraps what the network said in a RuntimeError.
        causes = [e for e in (error, error.__cause__) if e is not None]
        network = any(type(e).__module__.split(".")[0] in _NETWORK_PACKAGES for e in causes)
        inconsistent = isinstance(error, OSError) and "Consistency check" in str(error)
        if not network and not inconsistent:
            raise
        server = _endpoint() or "https://huggingface.co"
        raise HubError(
            f"{what}: no connection to {server} ({cause(causes[-1])})",
            hint="check the network, or name a mirror: export HF_ENDPOINT=https://...",
        ) from error
