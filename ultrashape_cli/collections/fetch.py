"""Fetching what a manifest names: a bounded pool, each failure recorded, resumed where it ended.

DIR/ab/NAME.glb        files, whole as soon as they have their name
DIR/fetched.jsonl      a line per item and try: what became of it; the last one counts
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ultrashape_cli.collections.download import Budget, BudgetError, FetchError, GoneError, download
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, end_torn_line, try_lock

JOURNAL = "fetched.jsonl"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_TEMPORARY = "[0-9a-f][0-9a-f]/.*.tmp.*"

State = Literal["done", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one item."""

    key: str
    state: State
    """`gone` is not asked for again: it is no longer there, or is another file than it was."""
    sha256: str = ""
    bytes: int = 0
    message: str = ""


@dataclass(slots=True)
class Fetched:
    """What one call did."""

    fetched: int = 0
    had: int = 0
    """Files that were there before."""
    bytes: int = 0
    """Of the files fetched by this call."""
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> why; these are tried again by the next call."""
    gone: dict[str, str] = field(default_factory=dict)
    left: int = 0
    """Items that did not fit into the limit, or were not reached before a signal."""
    causes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """How items are fetched."""

    workers: int = 8
    max_bytes: int | None = None
    """Of all files in the folder, those of former calls too."""
    retry_gone: bool = False
    tries: int = 4
    timeout_s: float = 60.0
    """Without a byte."""
    pause_s: float = 1.0
    """Before the second try; doubled before each further one."""


def target_of(item: SourceItem, folder: Path) -> Path:
    """Returns the file of an item in the folder of what is fetched."""
    digest = hashlib.sha256(item.key.encode(errors="surrogateescape")).hexdigest()
    name = item.uid if _NAME.fullmatch(item.uid) else digest[:32]
    return folder / digest[:2] / f"{name.removesuffix(item.kind)}{item.kind}"


def read_journal(folder: Path) -> dict[str, Entry]:
    """Returns key -> what became of it last; lines that a killed process tore are passed over."""
    found: dict[str, Entry] = {}
    with suppress(FileNotFoundError), (folder / JOURNAL).open("rb") as file:
        for line in file:
            with suppress(ValueError, TypeError, KeyError):
                entry = Entry(**json.loads(line))
                found[entry.key] = entry
    return found


def has_file(item: SourceItem, entry: Entry | None, folder: Path) -> bool:
    """Says whether the item's file is there, by the journal's hash and the size on disk."""
    if entry is None or entry.state != "done":
        return False
    if item.sha256 and item.sha256 != entry.sha256:
        return False
    with suppress(OSError):
        return target_of(item, folder).stat().st_size == entry.bytes
    return False


def fetch_items(
    items: Iterable[SourceItem],
    folder: Path,
    settings: FetchSettings,
    *,
    on_progress: Callable[[int, str], None] = lambda done, note: None,
    stop: Callable[[], bool] = lambda: False,
) -> Fetched:
    """Fetches what the folder lacks; a failure is recorded and the others go on.

    Args:
        items: Those with an address; taken as there is room for them.
        folder: Where files and the journal are kept.
        settings: How.
        on_progress: Told the items dealt with and the last one's key.
        stop: Asked between items; downloads at work are ended.

    Raises:
        UsageError: Another process fetches into the folder.
        DiskError: No room; what is whole stays.
    """
    with _alone(folder):
        journal = read_journal(folder)
        for rest in folder.glob(_TEMPORARY):
            rest.unlink(missing_ok=True)
        budget = Budget(settings.max_bytes)
        with (folder / JOURNAL).open("a", encoding="utf-8") as lines:
            call = _Call(folder, settings, budget, journal, on_progress, stop)
            for entry in call.run(items):
                with disk_errors(folder):
                    lines.write(json.dumps(asdict(entry)) + "\n")
                    lines.flush()
    return call.outcome


class _Call:
    def __init__(
        self,
        folder: Path,
        settings: FetchSettings,
        budget: Budget,
        journal: dict[str, Entry],
        on_progress: Callable[[int, str], None],
        stop: Callable[[], bool],
    ) -> None:
        self.folder, self.settings, self.budget = folder, settings, budget
        self.journal = journal
        self.on_progress, self.stop = on_progress, stop
        self.outcome = Fetched()
        self._ending = threading.Event()
        self._gone_before = 0

    def run(self, items: Iterable[SourceItem]) -> Iterator[Entry]:
        """Yields an entry per item that this call has dealt with."""
        # What is there counts into the limit before anything new may.
        todo = list(self._lacking(items))
        waiting: set[Future[Entry | None]] = set()
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="fetch") as pool:
            try:
                for item in todo:
                    if self._over():
                        break
                    waiting.add(pool.submit(self._fetch, item))
                    while len(waiting) >= 2 * self.settings.workers and not self._over():
                        done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                        yield from self._entries(done)
                while waiting:
                    self._over()
                    done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    yield from self._entries(done)
            finally:
                self._ending.set()
                pool.shutdown(cancel_futures=True)
        outcome = self.outcome
        dealt = outcome.fetched + len(outcome.failed)
        outcome.left = len(todo) - dealt - (len(outcome.gone) - self._gone_before)

    def _lacking(self, items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        for item in items:
            entry = self.journal.get(item.key)
            if entry is not None and has_file(item, entry, self.folder):
                self.outcome.had += 1
                self.budget.take(entry.bytes, force=True)
            elif entry is not None and entry.state == "gone" and not self.settings.retry_gone:
                self.outcome.gone[item.key] = entry.message
                self._gone_before += 1
            elif item.url:
                yield item

    def _over(self) -> bool:
        if self.stop():
            self._ending.set()
        return self._ending.is_set() or self.budget.full

    def _entries(self, done: set[Future[Entry | None]]) -> Iterator[Entry]:
        outcome = self.outcome
        for future in done:
            entry = future.result()
            if entry is None:
                continue
            if entry.state == "done":
                outcome.fetched += 1
                outcome.bytes += entry.bytes
            else:
                kept = outcome.failed if entry.state == "failed" else outcome.gone
                kept[entry.key] = entry.message
            self.journal[entry.key] = entry
            yield entry
            total = outcome.fetched + len(outcome.failed) + len(outcome.gone) - self._gone_before
            self.on_progress(total, entry.key)

    def _fetch(self, item: SourceItem) -> Entry | None:
        """Fetches one item in a thread of the pool; None where it is left for another call."""
        settings = self.settings
        if self._ending.is_set() or self.budget.full:
            return None
        target = target_of(item, self.folder)
        try:
            sha256, size = download(
                item.url,
                target,
                self.budget,
                self._ending,
                sha256=item.sha256,
                tries=settings.tries,
                timeout_s=settings.timeout_s,
                pause_s=settings.pause_s,
            )
        except BudgetError:
            return None
        except GoneError as error:
            return Entry(item.key, "gone", message=error.message)
        except FetchError as error:
            return Entry(item.key, "failed", message=error.message)
        return Entry(item.key, "done", sha256, size)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        end_torn_line(folder / JOURNAL)
        lock = (folder / ".lock").open("a")
    with lock:
        if not try_lock(lock.fileno()):
            raise UsageError(f"another process fetches into `{folder}`", hint="wait for it")
        yield
