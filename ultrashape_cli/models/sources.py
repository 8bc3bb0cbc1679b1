"""What a user may call "weights", resolved to the file that holds each network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from ultrashape_cli.config.distilled import Distilled
from ultrashape_cli.config.trained_views import KEY, TrainedViews
from ultrashape_cli.errors import CheckpointError, UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.models.adapters import merge_adapters
from ultrashape_cli.models.export_manifest import MANIFEST, is_export, read_manifest
from ultrashape_cli.models.file_check import require_whole, weights_problem
from ultrashape_cli.models.quantised_file import (
    MERGE_FIRST,
    Quantisation,
    prepare_layers,
    read_quantisation,
)
from ultrashape_cli.models.registry import COMPONENTS, MODELS, Networks, build, model_spec
from ultrashape_cli.models.weights import load_into, read_metadata, read_state_dict
from ultrashape_cli.runs import (
    ADAPTER_FILE,
    CHECKPOINT_MANIFEST,
    EMA_FILE,
    MODEL_FILE,
    RunFolder,
    best_checkpoint,
    checkpoint_name,
    complete_checkpoints,
    damaged_file,
    digest,
    find_runs,
    verified_checkpoints,
)

REFERENCE_MODEL = "ultrashape-1.0"
PACKAGED = Path(__file__).parent / "packaged"
"""Folder of the weights that come with the package."""
WEIGHT_FILES = (MODEL_FILE, EMA_FILE, ADAPTER_FILE)
"""What others read of a checkpoint; its trainer's state is twice as large."""
RUNS, INSTALLED = Path("runs"), Path("weights")
"""Where `ushape train` and `ushape weights pull` write, below the current folder."""


@dataclass(frozen=True, slots=True)
class WeightSource:
    """The model family and, per network, the file with its weights."""

    model: str
    files: dict[str, Path]
    adapters: dict[str, Path] = field(default_factory=dict)
    """Folders of adapters to merge into a network's weights."""
    averaged: bool = False
    """Whether the trained weights, or adapters, are their average over the run."""
    distilled: Distilled | None = None
    """How they are sampled, where they were distilled."""
    exported: Path | None = None
    """Folder of the graphs, where the weights are in those of an export alone."""
    views: TrainedViews | None = None
    """How they were trained with several views."""

    @property
    def adapter_file(self) -> str:
        """Name of the file with the adapters in their folders."""
        return EMA_FILE if self.averaged else ADAPTER_FILE

    @property
    def quantised(self) -> Quantisation | None:
        """Returns what the file of the DiT says of its codes; None for weights in floating point.

        Raises:
            CheckpointError: What it says is broken.
        """
        if self.exported is not None or "dit" not in self.files:
            return None
        return read_quantisation(self.files["dit"])

    @property
    def weight_files(self) -> list[Path]:
        """Returns the files of weights and adapters; one of several networks comes again."""
        return [*self.files.values(), *(p / self.adapter_file for p in self.adapters.values())]

    @property
    def inputs(self) -> list[Path]:
        """Returns what is read: files, and of a run all checkpoints, which stay as they are."""
        found = self.weight_files
        runs = [p.parent.parent for p in found if (p.parent / CHECKPOINT_MANIFEST).is_file()]
        return [*found, *runs, *([self.exported] if self.exported else [])]


class Loaded(NamedTuple):
    """Networks in eval mode, and the source they came from."""

    networks: Networks
    source: WeightSource


def resolve_weights(path: Path, *, averaged: bool = False) -> WeightSource:
    """Finds the weights behind a run, a checkpoint folder, a safetensors file or a bundle.

    A run and its checkpoints hold only the network that was trained; `base.json` of the run names
    the files of the others.

    Args:
        path: What the user names.
        averaged: Take the averaged weights of a run.

    Raises:
        CheckpointError: Nothing usable is there, by its size and its table; no tensor is read.
    """
    if not path.exists():
        raise CheckpointError(
            f"no weights at `{path}`",
            hint="name a run, a checkpoint of one, or a weights file; `ushape weights pull` "
            "downloads the released weights",
        )
    if path.is_dir() and (path / "base.json").is_file():
        return _from_run(RunFolder(path), choose_checkpoint(RunFolder(path)), averaged)
    if path.is_dir() and (path / CHECKPOINT_MANIFEST).is_file():
        require_intact(path)
        return _from_run(RunFolder(path.parent.parent), path, averaged)
    if averaged:
        raise CheckpointError(f"`{path}` is no run, so it has no averaged weights")
    if is_export(path):
        manifest = read_manifest(path)
        return WeightSource(
            model_spec(manifest["model"]).name,
            dict.fromkeys(COMPONENTS, path / MANIFEST),
            distilled=Distilled.parse(manifest.get("distilled")),
            exported=path,
        )
    if path.is_file():
        require_whole(path)
    elif not any(path.glob("*.safetensors")):
        run = RunFolder(path).is_run()
        raise CheckpointError(
            f"`{path}` is a {'run that has no weights yet' if run else 'folder without weights'}",
            hint="name another run, a checkpoint of one, or a weights file",
        )
    said = read_metadata(path) if path.suffix == ".safetensors" else {}
    source = WeightSource(
        said.get("model") or REFERENCE_MODEL,
        dict.fromkeys(COMPONENTS, path),
        distilled=Distilled.parse(said.get("distilled")),
        views=TrainedViews.parse(said.get(KEY)),
    )
    _ = source.quantised  # a broken one is refused before anything is planned
    return source


def choose_checkpoint(run: RunFolder, name: str = "latest") -> Path:
    """Returns a whole checkpoint of a run: `latest`, `best`, or that of a step.

    Raises:
        CheckpointError: There is none, or not this one.
    """
    found = complete_checkpoints(run.checkpoints)
    if not found:
        raise CheckpointError(
            f"run `{run.root}` has no complete checkpoint yet",
            hint=shlex.join(
                ("ushape", "train", "--config", str(run.config), "--out", str(run.root))
            ),
        )
    if name == "latest":
        chosen = next(verified_checkpoints(run.checkpoints, names=WEIGHT_FILES), None)
    elif name == "best":
        chosen = best_checkpoint(run.checkpoints, names=WEIGHT_FILES)
    else:
        wanted = checkpoint_name(int(name)) if name.isdecimal() else name
        chosen = next((path for path in found if path.name == wanted), None)
        if chosen is not None:
            require_intact(chosen)
    if chosen is None:
        problem = "only damaged checkpoints" if name == "latest" else f"no checkpoint `{name}`"
        others = f"checkpoints: {', '.join(path.name for path in found)}"
        backup = f"copy {run.checkpoints} back from a backup, or train anew"
        raise CheckpointError(
            f"run `{run.root}` has {problem}", hint=backup if name == "latest" else others
        )
    return chosen


def require_intact(checkpoint: Path) -> None:
    """Raises CheckpointError where the weights of a checkpoint differ from its manifest."""
    damaged = damaged_file(checkpoint, WEIGHT_FILES)
    if damaged is not None:
        raise CheckpointError(
            f"`{damaged}` differs from its manifest (damaged on disk?)",
            hint=f"pass the run `{checkpoint.parent.parent}`, whose newest whole one is taken",
        )


def require_base(run: RunFolder) -> None:
    """Raises CheckpointError where a run's own copy of the weights it started from has changed."""
    base = read_json(run.base)
    for name, known in (base or {}).get("digests", {}).items():
        file = run.root / name
        if not file.is_file() or digest(file) != known:
            raise CheckpointError(
                f"`{file}` is damaged: it differs from what the run started from",
                hint="copy it back from a backup; `--force` starts the run anew",
            )


def require_averaged(checkpoint: Path) -> None:
    """Raises CheckpointError where a checkpoint has no averaged weights."""
    if not (checkpoint / EMA_FILE).is_file():
        raise CheckpointError(
            f"`{checkpoint}` has no averaged weights",
            hint="leave --ema out; a run keeps them with --set train.ema_decay=0.999",
        )


def packaged_weights(name: str) -> Path | None:
    """Returns the weights of a model that come with the package, or None."""
    path = PACKAGED / f"{name}.safetensors"
    return path if path.is_file() else None


def resolve_named(name: Path) -> WeightSource:
    """Returns what `resolve_weights` finds, or the packaged weights of a model of that name.

    Raises:
        CheckpointError: Neither is there.
    """
    packaged = None if name.exists() else packaged_weights(str(name))
    return resolve_weights(packaged or name)


def find_weights(checkpoint: Path | None, model: str | None = None) -> WeightSource:
    """Returns the weights a user means: those named, else the newest that can refine.

    That is the newest finished DiT run in ./runs, else what `ushape weights pull` has put into
    ./weights. Packaged weights are for trying and never taken unless asked for.

    Args:
        checkpoint: Anything that `resolve_named` takes.
        model: Model family, whose packaged or pulled weights are meant.

    Raises:
        CheckpointError: Nothing is there; the hint says what to do.
        UsageError: Both arguments are given.
    """
    if checkpoint is not None:
        if model is not None:
            raise UsageError("both --checkpoint and --model are given", hint="leave one out")
        return resolve_named(checkpoint)
    if model is not None:
        names = [model_spec(model).name]
        packaged = packaged_weights(model)
        if packaged is not None:
            return resolve_weights(packaged)
    else:
        names = list(MODELS)
        for run in find_runs(RUNS):
            trained = (read_json(run.base) or {}).get("trained", ())
            if "dit" in trained and run.read_status().get("state") == "finished":
                return resolve_weights(run.root)
    for name in names:
        for file in MODELS[name].files:
            if (INSTALLED / file).is_file():
                return resolve_weights(INSTALLED / file)
    raise _no_weights(model)


def _no_weights(model: str | None) -> CheckpointError:
    if model is not None:
        where = f"`{INSTALLED}/{MODELS[model].files[0]}`" if MODELS[model].files else "this install"
        hint = f"ushape weights pull {model}" if MODELS[model].files else "--checkpoint RUN or FILE"
        return CheckpointError(f"no weights of model `{model}` in {where}", hint=hint)
    trial = "; --model tiny is a small one to try with" if packaged_weights("tiny") else ""
    return CheckpointError(
        f"no weights: no finished DiT run in `{RUNS}`, no released weights in `{INSTALLED}`",
        hint="--checkpoint RUN or FILE; or `ushape weights pull --accept-license`, which downloads "
        f"the released weights to `{INSTALLED}`; or `ushape train`{trial}",
    )


def _from_run(run: RunFolder, checkpoint: Path, averaged: bool) -> WeightSource:
    base = read_json(run.base)
    if not isinstance(base, dict):
        raise CheckpointError(
            f"`{run.base}` is missing or broken, so the frozen networks cannot be found",
            hint="pass a complete weights file instead of the run",
        )
    files = {name: (run.root / file).resolve() for name, file in base["components"].items()}
    require_base(run)
    for file in sorted(set(files.values())):
        if problem := weights_problem(file):
            raise CheckpointError(
                f"`{file}`, which run `{run.root}` started from, {problem}",
                hint=f"put it back, or write where it is now into {run.base}",
            )
    if averaged:
        require_averaged(checkpoint)
    distilled, views = Distilled.parse(base.get("distilled")), TrainedViews.parse(base.get(KEY))
    if (checkpoint / ADAPTER_FILE).is_file():
        adapters = dict.fromkeys(base["trained"], checkpoint)
        return WeightSource(base["model"], files, adapters, averaged, distilled, views=views)
    files |= dict.fromkeys(base["trained"], checkpoint / (EMA_FILE if averaged else MODEL_FILE))
    return WeightSource(base["model"], files, distilled=distilled, views=views)


def load_networks(
    source: WeightSource,
    *,
    components: Sequence[str] = COMPONENTS,
    vae_parts: Sequence[str] = ("encoder", "decoder"),
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> Networks:
    """Builds networks on the meta device and loads their weights strictly.

    Args:
        source: From `resolve_weights`.
        components: Which networks.
        vae_parts: Which halves of the autoencoder.
        device: Where they go.
        dtype: Of floating-point weights; None keeps the file's.

    Raises:
        CheckpointError: A file lacks a network, or its keys or shapes differ; or adapters are to
            be added to codes; or the weights are those of an export.
    """
    if source.exported is not None:
        raise CheckpointError(
            f"`{source.exported}` is an export for onnxruntime: its weights are in graphs alone",
            hint="name the checkpoint that it was made from",
        )
    networks = build(model_spec(source.model), components=components, vae_parts=vae_parts)
    quantised = source.quantised if "dit" in components else None
    for file in sorted({source.files[name] for name in components}):
        found = read_state_dict(file)
        for name in components:
            if source.files[name] != file:
                continue
            if name not in found:
                raise CheckpointError(
                    f"`{file}` holds no `{name}` weights (found: {', '.join(found) or 'none'})",
                    hint="pass a complete checkpoint or the run it belongs to",
                )
            module = getattr(networks, name)
            if name == "dit":
                module.fit_view_embedder(found[name])
                if quantised is not None:
                    prepare_layers(module, quantised, file)
            absent = getattr(module, "absent_prefixes", ())
            weights = found[name]
            if name in source.adapters:
                if name == "dit" and quantised is not None:
                    raise CheckpointError(
                        f"`{file}` is quantised ({quantised.scheme}) and takes no adapters",
                        hint=MERGE_FIRST,
                    )
                weights = merge_adapters(weights, source.adapters[name], source.adapter_file)
            if name == "dit":
                module.fit_view_embedder(weights)  # of the adapters
            load_into(module, weights, file, ignore=absent, dtype=dtype)
    for module in networks:
        if module is not None:
            module.to(device).eval()
    return networks
