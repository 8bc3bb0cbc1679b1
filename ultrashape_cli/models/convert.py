"""Weights from one form to another: gather, describe, check, convert."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from ultrashape_cli.config.distilled import Distilled
from ultrashape_cli.config.trained_views import KEY as VIEWS
from ultrashape_cli.config.trained_views import TrainedViews
from ultrashape_cli.errors import CheckpointError, ConfigError
from ultrashape_cli.hub import sha256_file
from ultrashape_cli.models.adapters import merge_adapters
from ultrashape_cli.models.quantised_file import (
    GROUPS,
    KEY,
    Quantisation,
    prepare_layers,
    quantise_state,
    read_quantisation,
    require_plain,
)
from ultrashape_cli.models.registry import COMPONENTS, MODELS, ModelSpec, build, model_spec
from ultrashape_cli.models.sources import REFERENCE_MODEL, resolve_weights
from ultrashape_cli.models.view_embedding import EMBEDDER
from ultrashape_cli.models.weight_files import StateDict, dtype_name
from ultrashape_cli.models.weights import (
    Misfit,
    misfits,
    read_metadata,
    read_state_dict,
    write_reference_bundle,
    write_safetensors,
)
from ultrashape_cli.runs import CHECKPOINT_MANIFEST

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
BUNDLE_SUFFIXES = (".pt", ".pth", ".ckpt")


class Gathered(NamedTuple):
    """The networks behind a path, mapped from their files."""

    parts: dict[str, StateDict]
    files: dict[str, Path]
    metadata: dict[str, str]
    model: str | None
    """Its name, where the files say."""
    distilled: Distilled | None = None
    views: TrainedViews | None = None
    """How they were trained with several views."""

    @property
    def quantised(self) -> Quantisation | None:
        """Returns what the file of the DiT says of its codes; None where it has none."""
        return read_quantisation(self.files["dit"]) if "dit" in self.files else None


class PartSummary(NamedTuple):
    """What one network's weights amount to."""

    component: str
    file: str
    keys: int
    parameters: int
    dtypes: str
    bytes: int


def gather_weights(path: Path, *, averaged: bool = False) -> Gathered:
    """Return the networks of a weights file, a folder of shards, a run or a checkpoint of one.

    Args:
        path: What to read.
        averaged: Take the averaged weights of a run.
    """
    if _is_run(path):
        source = resolve_weights(path, averaged=averaged)
        read = {file: read_state_dict(file) for file in set(source.files.values())}
        absent = [name for name, file in source.files.items() if name not in read[file]]
        if absent:
            raise CheckpointError(f"{source.files[absent[0]]}: holds no {absent[0]} weights")
        parts = {name: read[file][name] for name, file in source.files.items()}
        for name, folder in source.adapters.items():
            require_plain(source.files[name], "adapted")
            parts[name] = merge_adapters(parts[name], folder, source.adapter_file)
        return Gathered(parts, source.files, {}, source.model, source.distilled, source.views)
    parts = read_state_dict(path)
    ordered = {name: parts[name] for name in COMPONENTS if name in parts}
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    metadata = read_metadata(files[0]) if files[0].suffix == ".safetensors" else {}
    distilled = Distilled.parse(metadata.get("distilled"))
    views = TrainedViews.parse(metadata.get(VIEWS))
    named = dict.fromkeys(ordered, path)
    return Gathered(ordered, named, metadata, metadata.get("model"), distilled, views)


def inputs_of(path: Path) -> list[Path]:
    """Return the files and folders behind a path, into which nothing may be written."""
    return resolve_weights(path).inputs if _is_run(path) else [path]


def files_of(path: Path) -> list[Path]:
    """Return the single files that are read of a weights file, a folder of shards or a run."""
    if not _is_run(path):
        return [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    source = resolve_weights(path)
    adapters = [folder / source.adapter_file for folder in source.adapters.values()]
    return sorted({*source.files.values(), *adapters})


def _is_run(path: Path) -> bool:
    """Say whether a path is a run or a checkpoint of one."""
    return any((path / name).is_file() for name in ("base.json", CHECKPOINT_MANIFEST))


def choose_model(gathered: Gathered, name: str | None = None) -> ModelSpec:
    """Return the named model, the one the file names, or the first that fits."""
    wanted = name or gathered.model
    if wanted is not None:
        return model_spec(wanted)
    fitting = (spec for spec in MODELS.values() if not check_weights(gathered, spec))
    return next(fitting, model_spec(REFERENCE_MODEL))


def check_weights(gathered: Gathered, spec: ModelSpec) -> list[tuple[Path, Misfit]]:
    """Return every key, with its file, that is missing, left over or of another shape."""
    built = build(spec, components=tuple(gathered.parts))
    networks = built._asdict()
    if built.dit is not None:
        built.dit.fit_view_embedder(gathered.parts["dit"])
    if "dit" in networks and (found := gathered.quantised) is not None:
        prepare_layers(networks["dit"], found, gathered.files["dit"])
    return [
        (gathered.files[name], misfit._replace(key=f"{name}.{misfit.key}"))
        for name, part in gathered.parts.items()
        for misfit in misfits(networks[name], part)
    ]


def require_fit(gathered: Gathered, spec: ModelSpec) -> None:
    """Raise CheckpointError unless the weights fit the model."""
    problems = check_weights(gathered, spec)
    if problems:
        file, misfit = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{file}: does not fit model {spec.name}: {misfit}{more}",
            hint=f"ushape weights verify {shlex.quote(str(file))} --model {spec.name}",
        )


def summarise(gathered: Gathered) -> list[PartSummary]:
    """Return one summary per network."""
    return [
        PartSummary(
            component=name,
            file=str(gathered.files[name]),
            keys=len(part),
            parameters=_count(gathered, name),
            dtypes=", ".join(_dtypes(gathered, name)),
            bytes=sum(tensor.nbytes for tensor in part.values()),
        )
        for name, part in gathered.parts.items()
    ]


def _count(gathered: Gathered, name: str) -> int:
    """Return the parameters of a network; of codes those that they stand for."""
    if name == "dit" and gathered.quantised is not None:
        dit = build(choose_model(gathered), components=("dit",)).dit
        assert dit is not None
        dit.fit_view_embedder(gathered.parts["dit"])
        return sum(parameter.numel() for parameter in dit.parameters())
    return sum(tensor.numel() for tensor in gathered.parts[name].values())


def _dtypes(gathered: Gathered, name: str) -> list[str]:
    """Return the dtypes of a network's tensors, with the scheme first where they are codes."""
    kinds = sorted({dtype_name(tensor.dtype) for tensor in gathered.parts[name].values()})
    found = gathered.quantised if name == "dit" else None
    return kinds if found is None else [f"{found.scheme} codes", *kinds]


def model_metadata(
    spec: ModelSpec, components: Sequence[str] = COMPONENTS, base_sha256: str | None = None
) -> dict[str, str]:
    """Return what a safetensors file says about itself: model, sizes, licence, origin."""
    sizes = {name: asdict(getattr(spec, name)) for name in components}
    metadata = {"model": spec.name, "params": json.dumps(sizes), "licence": spec.licence}
    return metadata if base_sha256 is None else {**metadata, "base_sha256": base_sha256}


def check_target(target: Path) -> None:
    """Raise ConfigError unless the suffix names a form that can be written."""
    if target.suffix not in (".safetensors", *BUNDLE_SUFFIXES):
        raise ConfigError(
            f"cannot write weights as `{target.name}`",
            hint=f"{target.stem}.safetensors, or {target.stem}.pt for the reference bundle",
        )


def convert_weights(
    gathered: Gathered,
    spec: ModelSpec,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the networks as safetensors or, by the suffix, as the reference bundle.

    Raises:
        CheckpointError: The weights do not fit the model, or are codes; nothing is written.
    """
    check_target(target)
    for file in set(gathered.files.values()):
        require_plain(file, "converted")
    require_fit(gathered, spec)
    if target.suffix in BUNDLE_SUFFIXES:
        _require_one_view(gathered, target)
        write_reference_bundle(target, gathered.parts, dtype=dtype)
        return
    files = set(gathered.files.values())
    base = next(iter(files)) if len(files) == 1 else None
    digest = sha256_file(base) if base is not None and base.is_file() else None
    write_safetensors(target, gathered.parts, _metadata(gathered, spec, digest), dtype=dtype)


def _metadata(gathered: Gathered, spec: ModelSpec, digest: str | None = None) -> dict[str, str]:
    """Return what a file of gathered weights says about itself."""
    found = model_metadata(spec, tuple(gathered.parts), digest)
    if gathered.distilled:
        found["distilled"] = json.dumps(gathered.distilled.as_dict())
    return found | (gathered.views.metadata() if gathered.views else {})


def _require_one_view(gathered: Gathered, target: Path) -> None:
    """Raise CheckpointError where weights for several views would go where only one is known."""
    if f"{EMBEDDER}.weight" in gathered.parts.get("dit", {}):
        raise CheckpointError(
            f"the weights for `{target}` were trained with several views, which the reference "
            "bundle has no layer for",
            hint=f"{target.stem}.safetensors keeps it",
        )


def quantise_weights(
    gathered: Gathered,
    spec: ModelSpec,
    target: Path,
    scheme: str,
    *,
    keep_down: bool = False,
    inputs: Sequence[Path] = (),
) -> Quantisation:
    """Write the networks to one safetensors file, the DiT's layers as codes.

    Args:
        gathered: The weights.
        spec: The model that they fit.
        target: The file.
        scheme: `int8`, `int6` or `int4`.
        keep_down: Leave the second layer of each feed-forward in 16 bit.
        inputs: The files behind the weights, whose hashes the file keeps.

    Raises:
        CheckpointError: The weights do not fit the model, or are codes; nothing is written.
    """
    check_quantisable(gathered, spec)
    dit = build(spec, components=("dit",)).dit
    assert dit is not None
    dit.fit_view_embedder(gathered.parts["dit"])
    state, skipped = quantise_state(dit, gathered.parts["dit"], scheme, keep_down=keep_down)
    # In an order that does not depend on where the files lie.
    hashes = tuple(sorted(sha256_file(file) for file in inputs))
    found = Quantisation(scheme, GROUPS[scheme], skipped, hashes)
    count = sum(tensor.numel() for part in gathered.parts.values() for tensor in part.values())
    metadata = {
        **_metadata(gathered, spec),
        # Of the weights, not of the bytes that they are packed in.
        "num_parameters": str(count),
        KEY: found.text(),
    }
    write_safetensors(target, {**gathered.parts, "dit": state}, metadata)
    return found


def check_quantisable(gathered: Gathered, spec: ModelSpec) -> None:
    """Raise CheckpointError unless there is a DiT in floating point that fits the model."""
    for file in set(gathered.files.values()):
        require_plain(file, "quantised again")
    if "dit" not in gathered.parts:
        file = next(iter(gathered.files.values()))
        raise CheckpointError(
            f"`{file}` holds no `dit` weights, which are what is quantised",
            hint="name a complete checkpoint or the run it belongs to",
        )
    require_fit(gathered, spec)
