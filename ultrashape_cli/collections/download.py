"""One file from one address: with limits, retries and its hash, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ultrashape_cli import __version__
from ultrashape_cli.errors import UShapeError
from ultrashape_cli.files import file_hash, temporary_path
from ultrashape_cli.formatting import cause
from ultrashape_cli.meshfiles.load import MAX_FILE_BYTES

_BLOCK = 1 << 16
_GONE = (404, 410, 451)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_MAX_PAUSE_S = 60.0


class FetchError(UShapeError):
    """A file that could not be fetched now."""


class GoneError(FetchError):
    """A file that is no longer there, or is another one: asking again is of no use."""


class BudgetError(FetchError):
    """A file for which there is no room in the limit, or no time left."""


class _AgainError(FetchError):
    """What another try may mend."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Budget:
    """Bytes that may be fetched, shared by all threads.

    Args:
        limit: None has no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit, self._used = limit, 0
        self._lock = threading.Lock()
        self.full = False
        """Set by the first file that did not fit."""

    def take(self, count: int, *, force: bool = False) -> None:
        """Reserves bytes; raises BudgetError where they do not fit, unless `force`."""
        with self._lock:
            if not force and self._limit is not None and self._used + count > self._limit:
                self.full = True
                raise BudgetError("beyond the limit")
            self._used += count

    def give_back(self, count: int) -> None:
        """Returns what was reserved for a file that did not come."""
        with self._lock:
            self._used -= count


def _opener() -> urllib.request.OpenerDirector:
    """Returns what opens http and https only: a manifest may have been written by anybody."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", f"ushape/{__version__}")]
    return opener


def download(
    url: str,
    target: Path,
    budget: Budget,
    ending: threading.Event,
    *,
    sha256: str = "",
    tries: int = 4,
    timeout_s: float = 60.0,
    pause_s: float = 1.0,
) -> tuple[str, int]:
    """Fetches a file and returns its SHA-256 and its bytes.

    Args:
        url: http or https.
        target: Gets its name when it is whole.
        budget: What may be fetched.
        ending: Ends the download when set.
        sha256: What it must have, where known.
        tries: Before it counts as failed.
        timeout_s: Without a byte.
        pause_s: Before the second try; doubled before each further one.

    Raises:
        GoneError: 404, 410, 451, or twice another content.
        BudgetError: Beyond the limit, or `ending`.
        FetchError: Anything else that more tries did not mend.
        DiskError: No room.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"`{url}` is no address of http or https")
    if target.is_file():  # killed between its last byte and the journal
        found = file_hash(target), target.stat().st_size
        if not sha256 or found[0] == sha256:
            budget.take(found[1])
            return found
    changed = 0
    for turn in range(tries):
        try:
            return _once(url, target, budget, ending, sha256, timeout_s)
        except _AgainError as error:
            if turn == tries - 1:
                raise FetchError(error.message) from error
            pause = max(error.pause_s, pause_s * 2**turn)
        except _ChangedError as error:
            changed += 1
            if changed == 2 or turn == tries - 1:
                raise GoneError(error.message) from error
            pause = pause_s
        if ending.wait(min(pause, _MAX_PAUSE_S)):
            raise BudgetError("stopped")
    raise AssertionError


class _ChangedError(FetchError):
    """Another content than the collection tells of."""


def _once(
    url: str, target: Path, budget: Budget, ending: threading.Event, sha256: str, timeout_s: float
) -> tuple[str, int]:
    reserved = 0
    try:
        # Addresses of some collections hold blanks and letters beyond ASCII.
        request = urllib.request.Request(urllib.parse.quote(url, safe=":/?&=%#@+,;~!$'()*"))
        with _opener().open(request, timeout=timeout_s) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise FetchError("the server sent a web page")
            told = int(answer.headers.get("Content-Length") or 0)
            if told > MAX_FILE_BYTES:
                raise FetchError(f"{told:,} bytes, more than a mesh file may have")
            budget.take(told)
            reserved = told
            with temporary_path(target) as temporary, temporary.open("wb") as file:
                digest = hashlib.sha256()
                size = 0
                while block := answer.read(_BLOCK):
                    if ending.is_set():
                        raise BudgetError("stopped")
                    size += len(block)
                    if size > reserved:
                        budget.take(size - reserved)
                        reserved = size
                    if size > MAX_FILE_BYTES:
                        raise FetchError("more bytes than a mesh file may have")
                    digest.update(block)
                    file.write(block)
                if told and size != told:
                    raise _AgainError(f"ended after {size:,} of {told:,} bytes")
                if not size:
                    raise _AgainError("the file is empty")
                if sha256 and digest.hexdigest() != sha256:
                    raise _ChangedError(f"sha256 is {digest.hexdigest()}, not {sha256}")
        return digest.hexdigest(), size
    except BaseException as error:
        budget.give_back(reserved)
        if isinstance(error, urllib.error.HTTPError):
            with error:
                raise _refusal(error) from error
        if isinstance(error, http.client.HTTPException | TimeoutError | urllib.error.URLError):
            raise _AgainError(cause(error)) from error
        if isinstance(error, ConnectionError):
            raise _AgainError(cause(error)) from error
        if isinstance(error, ValueError):  # a header or an address that is none
            raise FetchError(cause(error)) from error
        raise


def _refusal(error: urllib.error.HTTPError) -> FetchError:
    said = f"the server answered {error.code}"
    if error.code in _GONE:
        return GoneError(said)
    if error.code not in _AGAIN:
        return FetchError(said)
    later = str(error.headers.get("Retry-After", ""))
    return _AgainError(said, float(later) if later.isdecimal() else 0.0)
