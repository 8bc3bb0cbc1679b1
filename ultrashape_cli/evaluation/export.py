"""A checkpoint as a folder of ONNX files, or compiled for this machine; each part compared."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ultrashape_cli import __version__
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.images import INFERENCE_BORDER
from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.evaluation.parity import (
    LIMIT,
    SIZES,
    Cases,
    errors_of,
    require_parity,
    sizes_of,
)
from ultrashape_cli.exporting.aoti import COMPILED, cache_folder, compiled_graphs
from ultrashape_cli.exporting.onnx_files import (
    EXTERNAL_BYTES,
    OPSET,
    open_part,
    require,
    write_part,
)
from ultrashape_cli.exporting.parts import NETWORK_OF, PARTS, SIGNATURES, make_part
from ultrashape_cli.files import disk_errors, file_hash, partial_path
from ultrashape_cli.geometry.normalize import TRAINING_SIDE
from ultrashape_cli.inference.decode import BAND, coarsest_cells
from ultrashape_cli.inference.encoding import encoder_points
from ultrashape_cli.models.export_manifest import MANIFEST, is_export, write_manifest
from ultrashape_cli.models.flops import dense_flops, dit_flops
from ultrashape_cli.models.registry import ModelSpec, Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks

Tell = Callable[[str], None]
"""What is done next."""


def refuse_codes(source: WeightSource) -> None:
    """Raises CheckpointError for weights that are no plain ones: codes, or graphs already."""
    if source.exported is not None:
        raise CheckpointError(
            f"`{source.exported}` is an export already", hint="name the checkpoint it is of"
        )
    if (found := source.quantised) is not None:
        raise CheckpointError(
            f"`{source.files['dit']}` is quantised ({found.scheme}): its codes have no graph",
            hint="export the checkpoint that it was made from",
        )
    if source.views is not None:
        named = source.adapters.get("dit", source.files["dit"])
        raise CheckpointError(
            f"`{named}` was trained with several views, and graphs take one image",
            hint="refine with the checkpoint itself, or export one trained with train.views=1",
        )


def export_onnx(
    source: WeightSource,
    folder: Path,
    tell: Tell = lambda what: None,
    *,
    sizes: tuple[int, ...] = SIZES,
    external_bytes: int = EXTERNAL_BYTES,
) -> dict[str, Any]:
    """Writes a model as ONNX files and a manifest; returns the manifest.

    One network is in memory at a time. The folder has its name once all is written and compared.

    Args:
        source: Weights in floating point; adapters are merged.
        folder: Where to; an export that is there is replaced.
        tell: Called before each part.
        sizes: Latent tokens of the shapes on which parts are compared with the networks.
        external_bytes: See `onnx_files.write_part`.

    Raises:
        CheckpointError: The weights cannot be exported, or a part is not what the network is.
        DependencyError: A package is missing.
        DiskError: The folder cannot be written.
    """
    refuse_codes(source)
    require("onnx", "onnxscript", "onnxruntime")
    spec = model_spec(source.model)
    started, cases = time.monotonic(), Cases(spec, sizes)
    parts: dict[str, Any] = {}
    errors: dict[str, list[float]] = {}
    files: list[Path] = []
    temporary = partial_path(folder, os.getpid())
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_errors(folder):
            temporary.mkdir(parents=True)
            for name in PARTS:
                tell(name)
                part = make_part(name, _networks(source, name), spec)
                given, made = cases.follow(name, part)
                written = write_part(name, part, spec, temporary, external_bytes=external_bytes)
                del part
                gc.collect()  # before onnxruntime makes its own copy of the weights
                errors[name] = errors_of(open_part(temporary / f"{name}.onnx"), given, made)
                files += written
                parts[name] = _described(name, given, errors[name])
            require_parity(errors)
            content = _manifest(source, spec, parts, cases.tokens)
            content["seconds"] = round(time.monotonic() - started, 1)
            write_manifest(temporary, content, files)
            _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return content


def compile_for_this_machine(
    source: WeightSource, tell: Tell, sizes: tuple[int, ...] = SIZES
) -> dict[str, Any]:
    """Compiles a model's parts into the cache, unless they are there, and compares and times them.

    Args:
        source: Weights in floating point, of the model whose parts are compiled.
        tell: Called before and after each compilation.
        sizes: As above.

    Returns:
        The folder, and for each part the errors and the seconds of torch and of the package.

    Raises:
        CheckpointError: The weights cannot be used, or a part is not what the network is.
        DependencyError: There is no compiler.
    """
    refuse_codes(source)
    spec = model_spec(source.model)
    networks = load_networks(source)
    graphs, cases = compiled_graphs(networks, spec, tell), Cases(spec, sizes)
    parts, errors = {}, {}
    for name in PARTS:
        part = make_part(name, networks, spec)
        given, made = cases.follow(name, part)
        if name not in COMPILED:
            continue
        with torch.no_grad():
            errors[name] = errors_of(graphs[name], given, made)
            seconds = {
                way: [_seconds(run, one) for one in given[: len(sizes)]]
                for way, run in (("torch", part), ("aoti", graphs[name]))
            }
        parts[name] = {**_described(name, given, errors[name]), "seconds": seconds}
    require_parity(errors)
    return {"folder": str(cache_folder(spec)), "tokens": cases.tokens, "parts": parts}


def check_place(folder: Path, force: bool) -> str:
    """Returns why an export may not be written to a folder; nothing where it may."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return ""
    if not is_export(folder):
        return f"`{folder}` exists, and `ushape weights export` did not make it"
    return "" if force else f"`{folder}` exists"


def _networks(source: WeightSource, name: str) -> Networks:
    halves = ("encoder",) if name == "encoder" else ("decoder",)
    return load_networks(source, components=(NETWORK_OF[name],), vae_parts=halves)


def _seconds(run: Callable[..., object], inputs: tuple[torch.Tensor, ...]) -> float:
    found = []
    for _ in range(3):
        started = time.perf_counter()
        run(*inputs)
        found.append(time.perf_counter() - started)
    return round(min(found), 4)


def _described(name: str, given: list, errors: list[float]) -> dict[str, Any]:
    signature = SIGNATURES[name]
    sizes = sizes_of(given, signature.inputs, signature.dynamic)
    return {
        "inputs": list(signature.inputs),
        "outputs": list(signature.outputs),
        "dynamic": {
            key: {str(axis): length for axis, length in axes.items()}
            for key, axes in signature.dynamic.items()
        },
        "parity": [
            {"sizes": size, "error": error} for size, error in zip(sizes, errors, strict=True)
        ],
    }


def _manifest(
    source: WeightSource, spec: ModelSpec, parts: dict[str, Any], tokens: list[int]
) -> dict[str, Any]:
    refine = resolve(model=spec.name, environ={}).config.refine
    if source.distilled is not None:
        refine = source.distilled.sampled(refine)
    vae, context = spec.vae, spec.conditioner.tokens_of(spec.conditioner.image_size)
    sampled = ("steps", "solver", "guidance_scale", "strength", "tokens", "grid_resolution",
               "surface_points")  # fmt: skip
    return {
        "ushape": __version__,
        "model": spec.name,
        "licence": spec.licence,
        "source": _hashes(source),
        "distilled": source.distilled.as_dict() if source.distilled else None,
        "versions": {n: importlib.metadata.version(n) for n in ("torch", "onnx", "onnxruntime")},
        "opset": OPSET,
        "dtype": "fp32",
        "parity_limit": LIMIT,
        "parts": parts,
        "dense_experts": [
            {"tokens": count, "extra_flops": round(
                dense_flops(spec.dit, count, context) / dit_flops(spec.dit, count, context) - 1, 4)}
            for count in sorted({*tokens, vae.num_latents})
        ],
        "settings": {
            "image_size": spec.image_size,
            "image_border": INFERENCE_BORDER,
            "longest_side": TRAINING_SIDE,
            "voxel_resolution": vae.voxel_resolution,
            "truncation": vae.truncation,
            "coarsest_cells": coarsest_cells(vae.truncation),
            "near_surface": BAND,
            "scale_factor": vae.scale_factor,
            "latent_channels": vae.latent_channels,
            "context_channels": spec.dit.context_channels,
            "encoder_points": encoder_points(vae),
            "start": spec.start,
            "refine": {name: asdict(refine)[name] for name in sampled},
        },
    }  # fmt: skip


def _hashes(source: WeightSource) -> dict[str, dict[str, str]]:
    """Returns the hashes of the files of each network, by their names."""
    found = {}
    for network, path in source.files.items():
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if network in source.adapters:
            files.append(source.adapters[network] / source.adapter_file)
        found[network] = {file.name: file_hash(file) for file in files}
    return found


def _replace(temporary: Path, folder: Path) -> None:
    """Puts a finished folder in its place; of an export that was there, the manifest goes first."""
    if folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    temporary.rename(folder)
