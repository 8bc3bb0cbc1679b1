"""Checks of what a run reads: the dataset and the weights."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject
from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.models.file_check import weights_problem
from ultrashape_cli.runs import RunFolder, complete_checkpoints


def check_data(subject: Subject) -> Iterator[Finding]:
    """Says whether every asset of the lists has its files."""
    if subject.data is None:
        return
    dataset = Dataset(subject.data)
    try:
        dataset.require()
        lists = {name: dataset.read_split(name) for name in ("train", "val")}
    except (DatasetError, UsageError) as error:
        yield Finding("dataset", FAIL, error.message, error.hint or "")
        return
    ids = [asset for listed in lists.values() for asset in listed]
    unseen = [asset for asset in ids if not (dataset.views(asset) / "view_000.png").is_file()]
    unsampled = [asset for asset in ids if not dataset.samples(asset).is_file()]
    size = sum(_size(dataset.samples(asset)) for asset in ids) / 2**30
    counts = ", ".join(f"{len(listed):,} {name}" for name, listed in lists.items())
    for missing, what, verb in ((unseen, "views", "render"), (unsampled, "samples", "sample")):
        if missing:
            message = f"no {what} of {len(missing):,} assets, such as {missing[0]}"
            yield Finding(
                "dataset", FAIL, message, f"ushape {verb} {shlex.quote(str(dataset.root))}"
            )
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
    packaged = None if path.exists() else _packaged(path)
    file = packaged or path
    problem = inspect_weights(file)
    if problem:
        yield Finding("weights", FAIL, f"{path} {problem}", _fix(path))
    else:
        name = f"{path}, which comes with the package" if packaged else str(path)
        yield Finding("weights", OK, f"{name}, {_tree_size(file) / 2**30:.2f} GiB, whole")


def _packaged(path: Path) -> Path | None:
    # Imported on use: this loads torch, and a machine may be looked at because torch does not load.
    from ultrashape_cli.models.sources import packaged_weights

    return packaged_weights(str(path))


def _fix(path: Path) -> str:
    """Returns the command that brings weights; of our own runs nothing brings them back."""
    from ultrashape_cli.models.registry import MODELS

    if not path.exists():
        return "ushape weights pull"
    released = any(path.name in spec.files for spec in MODELS.values())
    return (
        shlex.join(("ushape", "weights", "pull", "-o", str(path.parent), "--force"))
        if released
        else ""
    )


def inspect_weights(path: Path) -> str:
    """Returns what is wrong with weights, said behind their name; nothing if all is well.

    By their sizes and tables. Reads no tensor: `ushape weights verify` does that.
    """
    if not path.exists():
        return "is not there"
    return _inspect_folder(path) if path.is_dir() else weights_problem(path)


def _inspect_folder(path: Path) -> str:
    run = RunFolder(path)
    if run.base.is_file():
        if not complete_checkpoints(run.checkpoints):
            return "is a run without a complete checkpoint"
        base = read_json(run.base)
        files = base.get("components", {}) if isinstance(base, dict) else {}
        for file in files.values():
            if problem := inspect_weights((path / file).resolve()):
                return f"started from `{file}`, which {problem}"
        return ""
    shards = sorted(path.glob("*.safetensors"))
    problems = [f"`{s.name}` {p}" for s in shards if (p := weights_problem(s))]
    if not shards:
        return "is a folder without weights"
    return f"is not whole: {'; '.join(problems)}" if problems else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tree_size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(_size(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)
