"""Training checkpoints: written whole or not at all, while training goes on, found, pruned.

checkpoints/latest                newest checkpoint's name; `best` where validation ran
checkpoints/step-00001200/
  model.safetensors   the trained network only; adapter_model.safetensors for adapters
  ema.safetensors     averaged weights, where they are kept
  trainer.pt          optimizer state and counters
  manifest.json       step, validation score, sizes and sha256 of the files; written last
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ultrashape_cli import __version__
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.files import disk_errors, sync, write_atomic, write_json
from ultrashape_cli.models.weight_files import read_torch_file
from ultrashape_cli.models.weights import read_state_dict, write_safetensors
from ultrashape_cli.runs import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    CHECKPOINT_MANIFEST,
    EMA_FILE,
    MODEL_FILE,
    RunFolder,
    best_checkpoint,
    checkpoint_name,
    checkpoint_step,
    complete_checkpoints,
    digest,
    verified_checkpoints,
)
from ultrashape_cli.training.mirror_writer import MirrorWriter

logger = logging.getLogger(__name__)

STATE_FILE = "trainer.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Everything a checkpoint holds."""

    step: int
    component: str
    """`dit` or `vae`; empty where the names of the weights begin with their network's."""
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    """Optimizer state and counters: tensors and plain values only."""
    metadata: Mapping[str, str]
    """Strings kept in the safetensors header."""
    score: float | None = None
    """What decides the best checkpoint; lower is better."""
    ema: Mapping[str, Tensor] | None = None
    adapter_config: Mapping[str, Any] | None = None
    """Makes `weights` adapters in peft's layout."""

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        held = _tensors([self.weights, self.state, self.ema or {}])
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def copy_to(self, buffers: dict[str, Tensor]) -> Snapshot:
        """Returns a copy that training cannot change any more.

        Args:
            buffers: Host memory of the copy before, which is used again: new pages would cost
                more time than the copy itself.
        """
        weights, state, ema = (
            _copied(value, buffers, name)
            for name, value in (("weights", self.weights), ("state", self.state), ("ema", self.ema))
        )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return replace(self, weights=weights, state=state, ema=ema)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """Which checkpoints stay: the newest, the best, and multiples of a number of steps."""

    newest: int
    every_steps: int = 0

    def prune(self, folder: Path, last_step: int, pinned: Collection[Path] = ()) -> None:
        """Removes the others up to a step; only checkpoints whose files are whole count as kept.

        Nothing goes as long as none would be left, nor what is `pinned`.
        """
        keep = set(islice(verified_checkpoints(folder, last_step=last_step), self.newest))
        if not keep:
            return
        best = best_checkpoint(folder, last_step=last_step)
        for path in complete_checkpoints(folder):
            step = checkpoint_step(path)
            round_number = self.every_steps and step % self.every_steps == 0
            held = path in keep or path == best or path in pinned
            if not held and step <= last_step and not round_number:
                shutil.rmtree(path)


@dataclass(slots=True)
class CheckpointWriter:
    """Writes checkpoints one after another, in a thread where the host has room for a copy.

    Args:
        folder: Parent of all checkpoints of the run.
        retention: What stays.
        background: Let training go on while a checkpoint is written.
        mirror: Copies those that are whole elsewhere.
    """

    folder: Path
    retention: Retention
    background: bool = True
    mirror: MirrorWriter | None = None
    _pending: Future[None] | None = field(default=None, init=False)
    _buffers: dict[str, Tensor] = field(default_factory=dict, init=False)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="checkpoint"), init=False
    )

    def write(self, snapshot: Snapshot) -> None:
        """Starts writing a checkpoint after the one before is whole.

        Raises:
            DiskError: This one or the one before could not be written.
        """
        self.wait()
        self._make_room(snapshot)
        background = self.background
        room = psutil.virtual_memory().available
        if background and not self._buffers and snapshot.num_bytes * 1.1 > room:
            logger.info("no host memory for a copy: training waits for the checkpoint")
            background = False
        if background:
            self._pending = self._thread.submit(self._write, snapshot.copy_to(self._buffers))
        else:
            self._write(snapshot)

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            DiskError: The last checkpoint could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Returns when nothing is being written or copied elsewhere; raises as `wait`."""
        self.wait()
        if self.mirror:
            self.mirror.finish()

    def _prune(self, retention: Retention, step: int) -> None:
        retention.prune(self.folder, step, self.mirror.pinned if self.mirror else ())

    def _make_room(self, snapshot: Snapshot) -> None:
        """Removes what will not be kept before the new one is written, where room is short."""
        if free_space(self.folder) < needed_space(snapshot.num_bytes):
            following = replace(self.retention, newest=max(1, self.retention.newest - 1))
            self._prune(following, snapshot.step)
            check_space(self.folder, snapshot.num_bytes, self.retention.newest)

    def _write(self, snapshot: Snapshot) -> None:
        path = save_checkpoint(self.folder, snapshot)
        if self.mirror:
            self.mirror.offer(path)
        self._prune(self.retention, snapshot.step)
        logger.info("saved %s", path)


def checkpoint_writer(
    config: TrainConfig, run: RunFolder, mirror: MirrorWriter | None = None
) -> CheckpointWriter:
    """Returns the writer that a run's settings ask for."""
    kept = Retention(newest=config.keep_checkpoints, every_steps=config.keep_every_steps)
    return CheckpointWriter(run.checkpoints, kept, config.async_checkpoints, mirror)


def save_checkpoint(folder: Path, snapshot: Snapshot) -> Path:
    """Writes a checkpoint into a temporary folder and renames it into place.

    Raises:
        DiskError: No space, or the folder cannot be written; older checkpoints are untouched.
    """
    final = folder / checkpoint_name(snapshot.step)
    temporary = folder / f".{final.name}.tmp"
    with disk_errors(final):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _write_files(temporary, snapshot)
            for path in temporary.iterdir():
                sync(path)
            files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
            manifest = {"version": __version__, "step": snapshot.step, "files": files}
            if snapshot.score is not None and math.isfinite(snapshot.score):
                manifest["score"] = snapshot.score
            write_json(temporary / CHECKPOINT_MANIFEST, manifest)
            sync(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.replace(final)
            sync(folder)
        except RuntimeError as error:
            # torch.save reports a full disk as a RuntimeError of its own.
            raise DiskError(
                f"cannot write `{final}`: {error}",
                hint="free some space there, then repeat the command",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _point(folder / "latest", final)
    best = best_checkpoint(folder)
    if best is not None:
        _point(folder / "best", best)
    return final


def newest_usable(folder: Path) -> Path | None:
    """Returns the newest checkpoint whose files are what its manifest says.

    Raises:
        CheckpointError: There are checkpoints and all are damaged.
    """
    found = next(verified_checkpoints(folder), None)
    if found is None and complete_checkpoints(folder):
        raise CheckpointError(
            f"every checkpoint in `{folder}` is damaged",
            hint=f"copy {folder} back from a backup, or remove it to start anew",
        )
    return found


def load_weights(checkpoint: Path, component: str) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint, adapters under peft's names."""
    if (checkpoint / ADAPTER_FILE).is_file():
        return load_file(checkpoint / ADAPTER_FILE)
    return _flat(read_state_dict(checkpoint / MODEL_FILE), component)


def load_ema(checkpoint: Path, component: str) -> dict[str, Tensor]:
    """Returns the averaged weights of a checkpoint, by the names of `load_weights`."""
    if (checkpoint / ADAPTER_FILE).is_file():
        return load_file(checkpoint / EMA_FILE)
    return _flat(read_state_dict(checkpoint / EMA_FILE), component)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns the trainer's state of a checkpoint; its tensors are mapped, not read.

    Raises:
        CheckpointError: It is no file of tensors and plain values.
    """
    state = read_torch_file(checkpoint / STATE_FILE)
    if not isinstance(state, dict):
        raise CheckpointError(f"`{checkpoint / STATE_FILE}` holds no trainer state")
    return state


@contextmanager
def naming_checkpoint(checkpoint: Path) -> Iterator[None]:
    """Turns what a state raises that does not fit the run into an error that names the file.

    Raises:
        CheckpointError: A counter is missing, or a tensor is of another shape or kind.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"`{checkpoint / STATE_FILE}` does not fit this run: {reason}",
            hint=f"remove {checkpoint} to go on from the one before",
        ) from error


def needed_space(num_bytes: int) -> int:
    """Returns the bytes of disk that a checkpoint of tensors of this size takes."""
    return int(num_bytes * 1.05)


def free_space(folder: Path) -> int:
    """Returns the free bytes where a run's checkpoints are; makes the folder."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free


def check_space(folder: Path, num_bytes: int, kept: int) -> None:
    """Raises DiskError where a checkpoint of this size does not fit.

    Args:
        folder: Parent of all checkpoints of the run.
        num_bytes: Of the tensors.
        kept: Newest checkpoints that the run keeps; fewer make room.
    """
    free, needed = free_space(folder), needed_space(num_bytes)
    if free < needed:
        fewer = " or add --set train.keep_checkpoints=1" if kept > 2 else ""
        raise DiskError(
            f"a checkpoint needs {needed / 2**20:,.0f} MiB, "
            f"`{folder}` has {free / 2**20:,.0f} MiB free",
            hint=f"free {(needed - free) / 2**20:,.0f} MiB there{fewer}, then repeat the command",
        )


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    adapters = snapshot.adapter_config is not None
    files = {ADAPTER_FILE if adapters else MODEL_FILE: snapshot.weights}
    if snapshot.ema is not None:
        files[EMA_FILE] = snapshot.ema
    for name, tensors in files.items():
        if adapters:
            save_file(dict(tensors), folder / name, dict(snapshot.metadata))
        else:
            parts = _by_network(tensors, snapshot.component)
            write_safetensors(folder / name, parts, snapshot.metadata)
    if snapshot.adapter_config is not None:
        write_json(folder / ADAPTER_CONFIG, dict(snapshot.adapter_config))
    torch.save(dict(snapshot.state), folder / STATE_FILE)


def _by_network(tensors: Mapping[str, Tensor], component: str) -> dict[str, dict[str, Tensor]]:
    if component:
        return {component: dict(tensors)}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        network, _, key = name.partition(".")
        parts.setdefault(network, {})[key] = tensor
    return parts


def _flat(parts: Mapping[str, Mapping[str, Tensor]], component: str) -> dict[str, Tensor]:
    if component:
        return dict(parts[component])
    return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}


def _point(link: Path, checkpoint: Path) -> None:
    write_atomic(link, lambda file: file.write(f"{checkpoint.name}\n".encode()))


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _copied(value: Any, buffers: dict[str, Tensor], name: str) -> Any:
    if isinstance(value, Tensor):
        buffer = buffers.get(name)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            # Pinned memory takes copies from the device at the speed of the bus.
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            buffers[name] = buffer
        return buffer.copy_(value.detach(), non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _copied(item, buffers, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v, buffers, f"{name}.{i}") for i, v in enumerate(value))
    return value
