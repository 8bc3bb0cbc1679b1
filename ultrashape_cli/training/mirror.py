"""A run's copy elsewhere: machines that are rented by the minute go, and their disks with them.

    run.json                     whose copy it is; first
    owner.json                   which process sends; the one that came last
    base.safetensors             what a small model started from
    checkpoints/step-00001200/   as in the run, manifest.json last
    config.toml, metrics.jsonl, ...   as of the newest checkpoint

A run goes on on any machine from the newest checkpoint that is whole there. A machine that was
given up and wakes again finds another owner, and sends nothing over what that one made.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, read_json, write_atomic, write_json
from ultrashape_cli.packing.layout import PackError, Piece
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import fetch
from ultrashape_cli.packing.unpack import write_bytes
from ultrashape_cli.runs import (
    CHECKPOINT_MANIFEST,
    RunFolder,
    checkpoint_step,
    complete_checkpoints,
)
from ultrashape_cli.training.base import BASE_FILE
from ultrashape_cli.training.setup import changed_keys

logger = logging.getLogger(__name__)

_FILES = ("config.toml", "origins.json", "environment.json", "command.txt", "data.json",
          "plan.json", "metrics.jsonl", "events.jsonl", "log.txt", "ATTRIBUTION.md",
          "base.json")  # fmt: skip
"""Of a run beside its checkpoints; the last one only counts with all that it names."""
_IDENTITY = "run.json"
_OWNER = "owner.json"
_FOLDER = "checkpoints"


@dataclass(frozen=True, slots=True)
class Copied:
    """A checkpoint elsewhere that is whole by its manifest."""

    name: str
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps that were done."""
        return checkpoint_step(Path(self.name))

    @property
    def pieces(self) -> list[Piece]:
        """Its files but for the manifest."""
        return [Piece(f"{_FOLDER}/{self.name}/{name}", entry["bytes"], entry["sha256"])
                for name, entry in self.manifest["files"].items()]  # fmt: skip


class Mirror:
    """A place that may hold a copy of a run.

    Args:
        address: What `Location` takes.

    Raises:
        UsageError: No such kind of storage.
        DependencyError: Its package is not installed.
    """

    def __init__(self, address: str) -> None:
        self.place = Location(address)
        self._known: dict[str, Copied] = {}
        self._token = uuid.uuid4().hex

    def identity(self) -> str | None:
        """Returns the id of the run that the place holds; None where it holds none.

        Raises:
            StorageError: It cannot be reached.
        """
        data = self.place.read(_IDENTITY)
        try:
            return None if data is None else str(json.loads(data)["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"`{self.place.address}/{_IDENTITY}` is damaged",
                               hint="choose another place") from error  # fmt: skip

    def require_mine(self, run: RunFolder, *, force: bool = False) -> None:
        """Raises UsageError where the place holds anything but a copy of the folder's run."""
        there, here = self.identity(), _identity(run)
        others = (
            [] if there else sorted({*self.place.sizes(""), *self.place.folders("")} - {_OWNER})
        )
        if others:
            raise UsageError(f"`{self.place.address}` holds `{others[0]}`, and no run",
                             hint="choose a place that is empty, or a new one below")  # fmt: skip
        if there and (force or (here and there != here)):
            what = (
                "a run, which --force leaves alone" if force else f"another run than `{run.root}`"
            )
            raise UsageError(f"`{self.place.address}` holds {what}",
                             hint="choose another place for the copy of this one")  # fmt: skip

    def claim(self, run: RunFolder) -> None:
        """Says there whose copy it is: what cannot be written is told before anything is trained.

        Whoever claimed it before sends nothing more.

        Raises:
            StorageError: The place cannot be reached or refuses.
            UsageError: It holds another run.
        """
        self.require_mine(run)
        self.place.send(run.identity, _IDENTITY)
        here = {"token": self._token, "pid": os.getpid(), "host": os.uname().nodename}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _OWNER
            write_json(path, {**here, "time": time.time()})
            self.place.send(path, _OWNER)

    def _require_owner(self, run: RunFolder) -> None:
        """Claims a place that nobody has; raises UsageError where another process took it."""
        data = self.place.read(_OWNER)
        try:
            owner = {} if data is None else dict(json.loads(data))
        except (ValueError, TypeError):
            owner = {}
        if not owner:
            self.claim(run)
        elif owner.get("token") != self._token:
            raise UsageError(
                f"process {owner.get('pid')} on `{owner.get('host')}` has gone on with this run",
                hint="stop this one: its checkpoints stay here alone",
            )

    def require_same(self, config: Config, assets: Collection[str]) -> None:
        """Raises UsageError where the copy is of a run with other settings, or of other data.

        Args:
            config: Present settings.
            assets: Ids of those to train on.
        """
        text, data = (self.place.read(name) for name in ("config.toml", "data.json"))
        with tempfile.TemporaryDirectory() as folder:
            copy = RunFolder(Path(folder))
            copy.config.write_bytes(text or b"")
            differing = changed_keys(copy, config) if text else []
        known = (json.loads(data or b"{}").get("train") or {}).keys()
        if known and not known & set(assets):
            differing.append(f"none of its {len(known)} assets is in `{config.train.data}`")
        if differing:
            raise UsageError(
                f"the run in `{self.place.address}` is another one: {', '.join(differing)}",
                hint="choose another place for the copy, or the settings of that run",
            )

    def checkpoints(self) -> list[Copied]:
        """Returns the whole checkpoints there, oldest first."""
        found = []
        for name in sorted(self.place.folders(_FOLDER)):
            if not _is_checkpoint(name):
                continue
            there = self.place.sizes(f"{_FOLDER}/{name}")
            if CHECKPOINT_MANIFEST not in there:
                continue
            copied = self._known.get(name) or self._read(name)
            if copied and all(
                there.get(piece.name.rpartition("/")[2]) == piece.size for piece in copied.pieces
            ):
                self._known[name] = copied
                found.append(copied)
        return found

    def newer(self, run: RunFolder) -> list[Copied]:
        """Returns the checkpoints there that are beyond those of the run's folder, newest first.

        Raises:
            UsageError: The place holds another run.
        """
        self.require_mine(run)
        here = complete_checkpoints(run.checkpoints)
        last = checkpoint_step(here[-1]) if here else -1
        return [copied for copied in reversed(self.checkpoints()) if copied.step > last]

    def bring(self, run: RunFolder, said: Callable[[str], None] = logger.info) -> Path | None:
        """Brings the newest whole checkpoint beyond those of the folder, and the run's files.

        Killed, it goes on with the same file when called again.

        Raises:
            UsageError: The place holds another run.
            StorageError: It cannot be reached.
            DiskError: No room.
        """
        for copied in self.newer(run):
            target = run.checkpoints / copied.name
            coming = target.with_name(f".{copied.name}.coming")
            said(f"bringing {copied.name} from {self.place.address}")
            try:
                for piece in copied.pieces:
                    path = coming / piece.name.rpartition("/")[2]
                    if not path.is_file():
                        fetch(self.place, piece, path)
            except PackError as error:
                said(f"{copied.name} is passed over: {error.message}")
                continue
            self._bring_files(run)
            write_json(coming / CHECKPOINT_MANIFEST, copied.manifest)
            with disk_errors(target):
                coming.replace(target)
            return target
        return None

    def send(self, run: RunFolder, checkpoint: Path, keep: int) -> None:
        """Copies a checkpoint and the run's files there, and removes the copies of older ones.

        Args:
            run: Its folder.
            checkpoint: In it.
            keep: Newest copies that stay, beside the best one.

        Raises:
            StorageError: The place cannot be reached or refuses.
            UsageError: It holds another run, or another process has gone on with this one.
        """
        self.require_mine(run)
        self._require_owner(run)
        there = self.place.sizes("")
        base = run.root / BASE_FILE
        if base.is_file() and there.get(BASE_FILE) != base.stat().st_size:
            self.place.send(base, BASE_FILE)
        folder = f"{_FOLDER}/{checkpoint.name}"
        manifest = f"{folder}/{CHECKPOINT_MANIFEST}"
        if self.place.read(manifest) != (checkpoint / CHECKPOINT_MANIFEST).read_bytes():
            # Another machine may have come to the same step by other sums.
            self.place.remove(manifest)
            self._known.pop(checkpoint.name, None)
            for path in sorted(checkpoint.iterdir()):
                if path.name != CHECKPOINT_MANIFEST:
                    self.place.send(path, f"{folder}/{path.name}")
            self.place.send(checkpoint / CHECKPOINT_MANIFEST, manifest)
        for name in _FILES:
            if (run.root / name).is_file():
                self.place.send(run.root / name, name)
        self._prune(keep)

    def _prune(self, keep: int) -> None:
        found = self.checkpoints()
        scored = [c for c in found if isinstance(c.manifest.get("score"), float)]
        best = min(scored, key=lambda c: c.manifest["score"], default=None)
        for copied in found[: -max(keep, 1)]:
            if copied is not best:
                # Without it nobody takes the rest for a checkpoint.
                self.place.remove(f"{_FOLDER}/{copied.name}/{CHECKPOINT_MANIFEST}")
                self._remove(copied.name)
        # A machine that was taken away leaves gigabytes of what it was about to send.
        whole = {copied.name for copied in found}
        for name in self.place.folders(_FOLDER):
            if found and _is_checkpoint(name) and name not in whole and name < found[-1].name:
                self._remove(name)

    def _remove(self, name: str) -> None:
        for file in self.place.sizes(f"{_FOLDER}/{name}"):
            self.place.remove(f"{_FOLDER}/{name}/{file}")
        self._known.pop(name, None)

    def _bring_files(self, run: RunFolder) -> None:
        for name in (_IDENTITY, *_FILES):
            data = self.place.read(name)
            if data is None:
                continue
            if name == run.base.name and not self._bring_base(run, data):
                continue
            write_atomic(run.root / name, partial(write_bytes, data))

    def _bring_base(self, run: RunFolder, data: bytes) -> bool:
        """Says whether what `base.json` names is here; else `--init` decides once more."""
        recorded = json.loads(data)
        digests = recorded.get("digests", {})
        for name in sorted(set(recorded["components"].values())):
            if Path(name).is_absolute():
                if not Path(name).is_file():
                    return False
                continue
            if name != BASE_FILE or BASE_FILE not in digests:
                return False
            size = self.place.sizes("").get(BASE_FILE)
            if size is None:
                return False
            if not (run.root / BASE_FILE).is_file():
                fetch(self.place, Piece(BASE_FILE, size, digests[BASE_FILE]), run.root / BASE_FILE)
        return True

    def _read(self, name: str) -> Copied | None:
        try:
            manifest = json.loads(self.place.read(f"{_FOLDER}/{name}/{CHECKPOINT_MANIFEST}") or "")
            copied = Copied(name, manifest)
            pieces = copied.pieces
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        plain = all("/" not in name and not name.startswith(".") for name in manifest["files"])
        sizes = all(isinstance(piece.size, int) and piece.size >= 0 for piece in pieces)
        return copied if pieces and plain and sizes else None


def _is_checkpoint(name: str) -> bool:
    return name.startswith("step-") and name[5:].isdecimal()


def _identity(run: RunFolder) -> str | None:
    found = read_json(run.identity)
    return str(found.get("id")) if isinstance(found, dict) else None
