"""The dataset on disk: the contract between all commands, owned by this module.

    data/
      meshes/ID.ply             watertight, normalised frame
      renders/ID/view_000.png   RGBA, and cameras.json
      samples/ID.npz            surface points, normals, optionally distances
      data_list/train.json      ids; val.json and test.json likewise
      data_list/split.json      how they were made, and the place of each asset
      render.json               id -> image folder
      records/ID.json           one record per asset (`Record`)
      settings.toml             what it was made with (`remembered.py`)
      report.html report.json

Records are one file per asset, replaced atomically, so that several processes and machines share
a folder without a database.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ultrashape_cli import __version__
from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.files import disk_errors, partial_path, read_json, write_json

RECORD_SCHEMA = 1
STEPS = ("watertight", "quality", "render", "sample")
"""Per-asset steps in the order they run; the others depend on the watertight mesh."""
TRAINING_STEPS = ("watertight", "render", "sample")
"""Steps whose files training reads."""
FOLDERS = ("meshes", "renders", "samples", "data_list", "records")
OWNED = (*FOLDERS, "render.json", "settings.toml", "report.html", "report.json")
"""What a dataset writes below its root."""
MANY_OUTPUTS = 2
"""Of a step with more files, their names are checked and not their sizes: all are written in one
go and renamed when whole."""


@dataclass(slots=True)
class StepRecord:
    """What one step did to one asset."""

    status: str
    """`done` or `failed`."""
    key: str
    """Hash of everything the result depends on; another key means redo."""
    params: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    measurements: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    """Path below the dataset -> bytes."""
    error: dict[str, Any] | None = None
    """`cause` (error, crash, timeout, memory, killed, storage), `message`, `hint`, or `limit`."""
    version: str = __version__
    time: float = 0.0
    attempts: int = 1
    """Times the step ran until this result; more than one after retries."""


@dataclass(slots=True)
class Record:
    """One asset: where it came from and what each step made of it."""

    id: str
    source: dict[str, Any]
    """`path`, `sha256`, `bytes`, `mtime_ns`; `materials` (names in the file), and of the files
    beside it that hold its colours `colour_files` (name -> bytes, mtime_ns, sha256) and their
    common hash `colours`; of an imported one `origin` (`collections/manifest.py`)."""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    """Further files with the same content."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """Of the filter: `filter`, `rejected` (rule names), and of a near-duplicate `twin` (id),
    `twin_distance` and maybe `other_colours`. Empty before any judgement."""
    stale: str = ""
    """Why the source no longer stands behind the asset: `deleted` or `edited`; else empty."""

    def done(self, step: str) -> bool:
        """Says whether the step has a result."""
        return step in self.steps and self.steps[step].status == "done"

    @property
    def complete(self) -> bool:
        """Says whether all that training reads has been made."""
        return all(self.done(step) for step in TRAINING_STEPS)

    @property
    def rejected(self) -> list[str]:
        """Names of the filter's rules that the asset breaks."""
        return self.verdict.get("rejected", [])

    @property
    def usable(self) -> bool:
        """Says whether the asset belongs in the splits."""
        return self.complete and not self.rejected and not self.stale

    @property
    def error(self) -> dict[str, Any] | None:
        """The first failed step's error, with its step."""
        for name, step in self.steps.items():
            if step.status == "failed" and step.error:
                return {"step": name, **step.error}
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain JSON values."""
        steps = {
            name: {key: getattr(step, key) for key in StepRecord.__slots__}
            for name, step in self.steps.items()
        }
        body = {"schema": RECORD_SCHEMA, "id": self.id, "source": self.source, "steps": steps}
        for name in ("duplicates", "verdict", "stale"):
            if value := getattr(self, name):
                body[name] = value
        return body

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        """Reads what `to_json` wrote; ValueError for another schema."""
        if value.get("schema") != RECORD_SCHEMA:
            raise ValueError(f"record schema {value.get('schema')}, expected {RECORD_SCHEMA}")
        steps = {name: StepRecord(**step) for name, step in value["steps"].items()}
        optional = {name: value[name] for name in ("duplicates", "verdict", "stale")
                    if name in value}  # fmt: skip
        return cls(value["id"], value["source"], steps, **optional)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Paths and records of one dataset folder."""

    root: Path
    is_local: ClassVar[bool] = True
    """Files are here, and need not be brought by `fetched` before they are opened."""

    def mesh(self, asset_id: str) -> Path:
        """Watertight mesh of an asset."""
        return self.root / "meshes" / f"{asset_id}.ply"

    def views(self, asset_id: str) -> Path:
        """Folder of an asset's views."""
        return self.root / "renders" / asset_id

    def view_files(self, asset_id: str) -> list[Path]:
        """The views of an asset in their order."""
        return sorted(self.views(asset_id).glob("view_*.png"))

    def samples(self, asset_id: str) -> Path:
        """Sample file of an asset."""
        return self.root / "samples" / f"{asset_id}.npz"

    def has(self, path: Path) -> bool:
        """Says whether the dataset holds a file."""
        return path.is_file()

    def fetched(self, path: Path) -> Path:
        """Returns a file's path when it can be opened; a packed dataset brings it first."""
        return path

    def lacking(self, ids: Sequence[str], file: Callable[[str], Path]) -> list[str]:
        """Returns those of some assets that have not got a file, such as `self.samples`."""
        return [asset for asset in ids if not self.has(file(asset))]

    def sample_digest(self, asset_id: str) -> str:
        """Returns what changes when the samples of an asset do."""
        from ultrashape_cli.data.npz import READ_ERRORS, ArrayFile

        try:
            return ArrayFile(self.samples(asset_id)).digest()
        except READ_ERRORS:  # the loader says what is wrong with it, or leaves it out
            return "unreadable"

    def record_path(self, asset_id: str) -> Path:
        """Record of an asset."""
        return self.root / "records" / f"{asset_id}.json"

    def list_path(self, split: str) -> Path:
        """JSON list of the ids of one split."""
        return self.root / "data_list" / f"{split}.json"

    @property
    def render_map(self) -> Path:
        """JSON map from id to image folder."""
        return self.root / "render.json"

    @property
    def settings(self) -> Path:
        """TOML file with what the dataset was made with."""
        return self.root / "settings.toml"

    def exists(self) -> bool:
        """Says whether this folder holds a prepared dataset."""
        return (self.root / "records").is_dir()

    def require(self) -> None:
        """Raises UsageError unless the folder holds a prepared dataset."""
        if not self.exists():
            packed = (self.root / "pack.json").is_file()
            way = f"data unpack {self.root}" if packed else f"prepare MODELS_DIR -o {self.root}"
            problem = f"`{self.root}` is not a prepared dataset (no records/)"
            raise UsageError(problem, hint=f"ushape {way}")

    def load_records(self) -> dict[str, Record]:
        """Returns all records by id, sorted.

        A record that is not JSON, or of another schema, counts as absent: the asset is redone.
        """
        folder = self.root / "records"
        records = {}
        # The collector would walk the growing heap again and again: a third of the time.
        with _no_collection():
            for asset_id in self.recorded_ids():
                record = self._load(folder, asset_id)
                if record is not None:
                    records[record.id] = record
        return records

    def recorded_ids(self) -> list[str]:
        """Returns the ids that have a record, sorted, without reading one."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = sorted(os.listdir(self.root / "records"))
            return [n[:-5] for n in names if n.endswith(".json") and not n.startswith(".")]
        return []

    @staticmethod
    def _load(folder: Path, asset_id: str) -> Record | None:
        # Plain strings: thirty thousand Path objects would take a second by themselves.
        value = read_json(os.path.join(folder, f"{asset_id}.json"))
        try:
            record = Record.from_json(value)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return record if record.id == asset_id else None

    def read_record(self, asset_id: str) -> Record | None:
        """Returns one record, or None."""
        value = read_json(self.record_path(asset_id))
        return Record.from_json(value) if isinstance(value, dict) else None

    def write_record(self, record: Record) -> None:
        """Replaces a record atomically."""
        write_json(self.record_path(record.id), record.to_json())

    def add_record(self, record: Record) -> None:
        """Writes a new or moved asset's record, keeping the steps another process has done."""
        with self.lock():
            old = self.read_record(record.id)
            if old is not None:
                record.steps, record.verdict = old.steps, old.verdict
            self.write_record(record)

    def mark(self, asset_id: str, *, verdict: dict[str, Any] | None = None,
             stale: str | None = None) -> None:  # fmt: skip
        """Replaces the verdict or the staleness of a record that exists; None leaves it."""
        with self.lock():
            record = self.read_record(asset_id)
            if record is None:
                return
            record.verdict = record.verdict if verdict is None else verdict
            record.stale = record.stale if stale is None else stale
            self.write_record(record)

    def write_step(self, asset_id: str, step: str, result: StepRecord) -> None:
        """Replaces one step of a record, keeping what other processes wrote meanwhile.

        A new watertight mesh drops the results made from the former one.
        """
        result.time = time.time()
        with self.lock():
            record = self.read_record(asset_id)
            if record is None:
                raise DatasetError(f"record of `{asset_id}` vanished from `{self.root}`")
            old = record.steps.get(step)
            if step == "watertight" and old is not None and old.key != result.key:
                record.steps = {}
            record.steps[step] = result
            self.write_record(record)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the dataset's lock for a short read-modify-write of a record."""
        import fcntl  # Windows has none

        folder = self.root / "records"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def drop_partial(self, asset_id: str, pid: int) -> None:
        """Removes the temporary files that a killed worker left of an asset.

        Their names are known, so that no folder with tens of thousands of files is listed.
        """
        places = [partial_path(path, pid) for path in (self.mesh(asset_id), self.samples(asset_id))]
        with suppress(FileNotFoundError, NotADirectoryError):
            views = self.views(asset_id)
            places += [views / name for name in os.listdir(views) if name.startswith(".")]
        for path in places:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def partial_files(self) -> dict[str, list[Path]]:
        """Returns all temporary files of meshes and samples by asset, whoever wrote them."""
        found: dict[str, list[Path]] = {}
        for folder in (self.root / "meshes", self.root / "samples"):
            with suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(folder):
                    if name.startswith(".") and ".tmp." in name:
                        asset_id = name[1:].split(".")[0]
                        found.setdefault(asset_id, []).append(folder / name)
        return found

    def is_current(self, record: Record, step: str, key: str) -> bool:
        """Says whether a step's result was made with `key` and its files are still whole."""
        done = record.steps.get(step)
        if done is None or done.status != "done" or done.key != key:
            return False
        root = str(self.root)
        if len(done.outputs) > MANY_OUTPUTS:
            # One listing instead of a call per view: a third of the time of a whole scan.
            folders: dict[str, set[str]] = {}
            for path in done.outputs:
                folder, _, name = path.rpartition("/")
                folders.setdefault(folder, set()).add(name)
            return all(names <= _names(f"{root}/{folder}") for folder, names in folders.items())
        return all(_size(f"{root}/{name}") == size for name, size in done.outputs.items())

    def output_sizes(self, paths: list[Path]) -> dict[str, int]:
        """Returns what a step record keeps of its output files."""
        return {str(path.relative_to(self.root)): path.stat().st_size for path in paths}

    def read_split(self, split: str) -> list[str]:
        """Returns the ids of one split.

        Raises:
            DatasetError: No such list yet, or not a list of ids.
        """
        ids = read_json(self.list_path(split))
        if ids is None:
            raise DatasetError(f"no `{self.list_path(split)}`", hint=f"ushape split {self.root}")
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise DatasetError(
                f"`{self.list_path(split)}` is not a list of ids", hint=f"ushape split {self.root}"
            )
        return ids


def step_key(settings: str, upstream: str) -> str:
    """Returns the hash that decides whether a step's result is still current.

    Args:
        settings: From `settings_text`.
        upstream: Key of the step it reads, or the hash of the source file.
    """
    return hashlib.sha256(f"{settings}:{upstream}".encode()).hexdigest()[:16]


def settings_text(step: str, version: int, params: dict[str, Any]) -> str:
    """Returns all a step's result depends on besides what it reads.

    Args:
        step: Its name.
        version: Counter of its algorithm; raising it redoes all results.
        params: Its settings.
    """
    return json.dumps([step, version, params], sort_keys=True)


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _names(folder: str) -> set[str]:
    with suppress(OSError):
        return set(os.listdir(folder))
    return set()


def _size(path: str) -> int | None:
    with suppress(OSError):
        return os.stat(path).st_size
    return None
