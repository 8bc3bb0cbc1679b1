"""Training checkpoints: written whole or not at all, found, loaded, pruned.

checkpoints/step-00001200/
  model.safetensors   the trained network only
  trainer.pt          optimizer state and counters
  manifest.json       step, sizes and sha256 of the files; written last
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ultrashape_cli import __version__
from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.files import disk_errors, read_json, write_json
from ultrashape_cli.models.weights import load_into, read_state_dict, write_safetensors
from ultrashape_cli.runs import CHECKPOINT_MANIFEST, checkpoint_name, complete_checkpoints

MODEL_FILE = "model.safetensors"
STATE_FILE = "trainer.pt"


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    component: str,
    net: nn.Module,
    state: Mapping[str, Any],
    metadata: Mapping[str, str],
    keep: int,
) -> Path:
    """Writes a checkpoint into a temporary folder and renames it into place.

    Args:
        folder: Parent of all checkpoints of the run.
        step: Optimizer steps done.
        component: Name of the trained network: `dit` or `vae`.
        net: That network, unwrapped.
        state: Optimizer state and counters: tensors and plain values only.
        metadata: Strings kept in the safetensors header.
        keep: Newest checkpoints that stay.

    Raises:
        DiskError: No space, or the folder cannot be written; older checkpoints are untouched.
    """
    final = folder / checkpoint_name(step)
    temporary = folder / f".{final.name}.tmp"
    with disk_errors(final):
        _check_space(folder, net, state)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write_safetensors(temporary / MODEL_FILE, {component: net}, metadata)
            torch.save(dict(state), temporary / STATE_FILE)
            files = {name: _describe(temporary / name) for name in (MODEL_FILE, STATE_FILE)}
            write_json(
                temporary / CHECKPOINT_MANIFEST,
                {"version": __version__, "step": step, "files": files},
            )
            shutil.rmtree(final, ignore_errors=True)
            temporary.replace(final)
            _sync_folder(folder)
        except RuntimeError as error:
            # torch.save reports a full disk as a RuntimeError of its own.
            raise DiskError(f"cannot write `{final}`: {error}", hint="free some space") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in complete_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def load_checkpoint(checkpoint: Path, *, component: str, net: nn.Module) -> dict[str, Any]:
    """Loads the network in place and returns the trainer's state.

    Raises:
        CheckpointError: A file differs from the manifest, or does not fit the network.
    """
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    for name, entry in manifest["files"].items():
        if _describe(checkpoint / name) != entry:
            raise CheckpointError(
                f"`{checkpoint / name}` differs from its manifest (damaged on disk?)",
                hint=f"remove {checkpoint} to resume from the one before",
            )
    found = read_state_dict(checkpoint / MODEL_FILE)
    with torch.no_grad():
        device = next(net.parameters()).device
        weights = {key: value.to(device) for key, value in found[component].items()}
        load_into(net, weights, checkpoint / MODEL_FILE)
    return torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check_space(folder: Path, net: nn.Module, state: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    moments = sum(
        value.numel() * value.element_size()
        for entry in state["optimizer"]["state"].values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    )
    free = shutil.disk_usage(folder).free
    if free < (weights + moments) * 1.05:
        need = (weights + moments) / 2**20
        raise DiskError(
            f"a checkpoint needs {need:,.0f} MiB, `{folder}` has {free / 2**20:,.0f} MiB free",
            hint="free some space or set train.keep_checkpoints=1",
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
