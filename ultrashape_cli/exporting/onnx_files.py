"""Parts as ONNX files, and sessions of onnxruntime that run them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.exporting.graphs import Graph
from ultrashape_cli.exporting.parts import (
    NETWORK_OF,
    SIGNATURES,
    dynamic_shapes,
    example_inputs,
)
from ultrashape_cli.formatting import cause
from ultrashape_cli.models.moe import set_expert_dispatch
from ultrashape_cli.models.registry import ModelSpec

OPSET = 20
EXTERNAL_BYTES = 1_900_000_000
"""Weights of a file above which they go into a second one: protobuf ends at 2 GiB."""
DATA_SUFFIX = ".data"
_INSTALL = "pip install 'ultrashape-cli[onnx]'"


def require(*packages: str) -> None:
    """Raises DependencyError where an optional package does not load, with the command to get it.

    Args:
        packages: Of `onnx`, `onnxscript` and `onnxruntime`.
    """
    import importlib

    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DependencyError(
                f"ONNX needs the package {name}, which does not load ({error})", hint=_INSTALL
            ) from error


def write_part(
    name: str,
    part: nn.Module,
    spec: ModelSpec,
    folder: Path,
    *,
    external_bytes: int = EXTERNAL_BYTES,
) -> list[Path]:
    """Writes a part as `NAME.onnx`, with dense experts; returns the files written.

    Weights are read from the module as they are written, one after another.

    Args:
        name: Of `parts.PARTS`.
        part: From `make_part`; its experts dispatch densely afterwards.
        spec: The model.
        folder: Where to.
        external_bytes: Weights above which `NAME.onnx.data` holds them.

    Raises:
        DependencyError: A package is missing.
        CheckpointError: torch cannot make a graph of the part.
    """
    require("onnx", "onnxscript")
    set_expert_dispatch(part, "dense")
    signature, inputs = SIGNATURES[name], example_inputs(name, spec)
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(part, inputs, dynamic_shapes=dynamic_shapes(name))
            made = torch.onnx.export(
                program,
                inputs,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise CheckpointError(
                f"torch {torch.__version__} cannot export the {NETWORK_OF[name]}: {cause(error)}"
            ) from error
        assert made is not None
        _name_axes(made, name)
        _forget_sources(made)
        size = sum(value.numel() * value.element_size() for value in part.state_dict().values())
        target = folder / f"{name}.onnx"
        made.save(target, external_data=size > external_bytes)
    data = target.with_name(target.name + DATA_SUFFIX)
    return [target, data] if data.exists() else [target]


def open_part(path: Path) -> Graph:
    """Returns a session that runs a file on the CPU, its data beside it.

    Raises:
        DependencyError: onnxruntime is missing.
        CheckpointError: It cannot run the file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its threads would turn in place for what comes next, and torch and numba wait for the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # Its errors have no class in common below that.
        raise CheckpointError(
            f"onnxruntime {onnxruntime.__version__} cannot run `{path}`: {cause(error)}",
            hint="export it anew: ushape weights export MODEL --format onnx",
        ) from error
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = {name: value.cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(found) for found in session.run(None, arrays))

    return run


def _name_axes(program: Any, name: str) -> None:
    """Gives the axes of any length the names of the table; torch numbers them."""
    signature, known = SIGNATURES[name], {}
    for given in program.model.graph.inputs:
        for axis, length in signature.dynamic.get(given.name, {}).items():
            known[str(given.shape[axis])] = length
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        for axis, length in enumerate(value.shape):
            if str(length) in known:
                value.shape[axis] = known[str(length)]


def _forget_sources(program: Any) -> None:
    """Takes the lines of code out that each node came from: folders of this machine, and bytes."""
    program.model.graph.metadata_props.clear()
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporter prints, and its own libraries' deprecations, from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
