"""Checks of what a run reads: the dataset and the weights."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import read_json
from ultrashape_cli.runs import RunFolder, complete_checkpoints

MAX_HEADER = 100 << 20
"""The safetensors format allows no longer one."""


def check_data(subject: Subject) -> Iterator[Finding]:
    """Says whether every asset of the lists has its files."""
    if subject.data is None:
        return
    dataset = Dataset(subject.data)
    try:
        dataset.require()
        lists = {name: dataset.read_split(name) for name in ("train", "val")}
    except DatasetError as error:
        yield Finding("dataset", FAIL, error.message, error.hint or "")
        return
    ids = [asset for listed in lists.values() for asset in listed]
    unseen = [asset for asset in ids if not (dataset.views(asset) / "view_000.png").is_file()]
    unsampled = [asset for asset in ids if not dataset.samples(asset).is_file()]
    size = sum(_size(dataset.samples(asset)) for asset in ids) / 2**30
    counts = ", ".join(f"{len(listed):,} {name}" for name, listed in lists.items())
    for missing, what in ((unseen, "views"), (unsampled, "samples")):
        if missing:
            message = f"no {what} of {len(missing):,} assets, such as {missing[0]}"
            yield Finding("dataset", FAIL, message, f"ushape prepare MODELS_DIR -o {dataset.root}")
    if not lists["train"]:
        yield Finding("dataset", FAIL, "no asset to train on", f"ushape split {dataset.root}")
    elif not unseen and not unsampled:
        message = f"{dataset.root}: {counts}, all files there, samples {size:.2f} GiB"
        yield Finding("dataset", OK, message, "")
    if not lists["val"]:
        yield Finding("dataset", WARN, "no validation asset", f"ushape split {dataset.root}")


def check_weights(subject: Subject) -> Iterator[Finding]:
    """Says whether the weights to start from are there and whole."""
    path = subject.weights
    if path is None:
        if subject.resolved.config.train.model == "ultrashape-1.0":
            yield Finding("weights", WARN, "none named: training needs --init",
                          "ushape weights pull")  # fmt: skip
        return
    problem = inspect_weights(path)
    if problem:
        yield Finding("weights", FAIL, f"{path}: {problem}", "ushape weights pull")
    else:
        yield Finding("weights", OK, f"{path}, {_tree_size(path) / 2**30:.2f} GiB, whole",
                      "")  # fmt: skip


def inspect_weights(path: Path) -> str:
    """Returns what is wrong with weights by their sizes and tables; nothing if all is well.

    Reads no tensor: `ushape weights verify` does that.
    """
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return _inspect_folder(path)
    if path.suffix == ".safetensors":
        return _inspect_safetensors(path)
    if not zipfile.is_zipfile(path):
        return "truncated, or no torch file"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return "" if any(name.endswith("data.pkl") for name in names) else "no torch file"


def _inspect_folder(path: Path) -> str:
    run = RunFolder(path)
    if run.base.is_file():
        if not complete_checkpoints(run.checkpoints):
            return "the run has no complete checkpoint"
        base = read_json(run.base)
        files = base.get("components", {}) if isinstance(base, dict) else {}
        for file in files.values():
            if problem := inspect_weights((path / file).resolve()):
                return f"`{file}`, which it was made from: {problem}"
        return ""
    shards = sorted(path.glob("*.safetensors"))
    problems = [f"`{s.name}`: {p}" for s in shards if (p := _inspect_safetensors(s))]
    return "; ".join(problems) if shards else "no weights in this folder"


def _inspect_safetensors(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            return "truncated, or no safetensors file"
        try:
            header = json.loads(file.read(length))
            entries = [body for key, body in header.items() if key != "__metadata__"]
            end = max((body["data_offsets"][1] for body in entries), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "its table cannot be read"
    missing = 8 + length + end - size
    return f"{missing:,} bytes are missing at its end" if missing > 0 else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tree_size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(_size(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
