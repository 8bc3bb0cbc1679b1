"""What runs the networks of a refinement: torch, torch's compiled packages, or onnxruntime."""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
from pathlib import Path

import torch

from ultrashape_cli.config.choices import Backend
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.exporting.aoti import compiled_graphs
from ultrashape_cli.exporting.graphs import GraphDiT, eager_graph, graph_networks
from ultrashape_cli.exporting.onnx_files import open_part
from ultrashape_cli.exporting.parts import PARTS, make_part
from ultrashape_cli.models.export_manifest import read_manifest, verify_files
from ultrashape_cli.models.registry import Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks, packaged_weights
from ultrashape_cli.runs import CHECKPOINT_MANIFEST

logger = logging.getLogger(__name__)


def choose_backend(source: WeightSource, config: RefineConfig, device: torch.device) -> Backend:
    """Returns `torch`, `aoti` or `onnx`: what the settings name, else what the weights are for.

    Raises:
        UsageError: Weights, settings or device do not go with it.
    """
    wanted, exported = config.backend, source.exported
    if exported is not None and wanted in ("torch", "aoti"):
        raise UsageError(
            f"backend `{wanted}` needs weights, and `{exported}` is an export for onnxruntime",
            hint="--backend onnx, or the checkpoint it was made from",
        )
    if exported is None and wanted == "onnx":
        named = _named(source)
        out = f"{Path(named).stem}-onnx"
        raise UsageError(
            f"backend `onnx` needs an exported folder, and `{named}` is none",
            hint=shlex.join(["ushape", "weights", "export", named, "--format", "onnx", "-o", out])
            + f"; then --checkpoint {shlex.quote(out)}",
        )
    own: Backend = "onnx" if exported is not None else "torch"
    chosen: Backend = own if wanted == "auto" else wanted
    if chosen != "torch":
        _check(chosen, source, config, device)
    return chosen


def _named(source: WeightSource) -> str:
    """Returns what names weights on a command line."""
    file = source.files["dit"]
    if packaged_weights(source.model) == file:
        return source.model
    checkpoint = source.adapters.get("dit", file.parent)
    return str(checkpoint if (checkpoint / CHECKPOINT_MANIFEST).is_file() else file)


def _check(chosen: str, source: WeightSource, config: RefineConfig, device: torch.device) -> None:
    """Raises UsageError for what a graph in fp32 on the CPU cannot do."""
    quantised = source.quantised
    problems = (
        (device.type != "cpu", f"runs on the CPU, not on {device}", "--device cpu --profile cpu"),
        (config.dtype != "fp32", f"computes in fp32, not in {config.dtype}",
         "--set refine.dtype=fp32"),
        (config.compile, "compiles nothing while it runs", "--set refine.compile=false"),
        (config.memory not in ("auto", "resident"),
         f"keeps all weights in memory: mode `{config.memory}` is torch's",
         "--set refine.memory=auto"),
        (config.view_mode == "trained",
         "has graphs of one image: these weights were trained with several views",
         "--view-mode spatial"),
        (quantised is not None,
         f"takes no codes: the weights are quantised ({quantised and quantised.scheme})",
         "the checkpoint they were made from, or --backend torch"),
    )  # fmt: skip
    for is_there, problem, hint in problems:
        if is_there:
            raise UsageError(f"backend `{chosen}` {problem}", hint=hint)


def load_graphs(source: WeightSource, backend: str) -> Networks:
    """Returns stand-ins for the networks that a backend runs.

    Args:
        source: That `choose_backend` was asked about.
        backend: `aoti` or `onnx`.

    Raises:
        CheckpointError: A file is damaged or not what was exported, or weights do not fit.
        DependencyError: onnxruntime or a compiler is missing.
    """
    spec = model_spec(source.model)
    if backend == "onnx":
        assert source.exported is not None
        verify_files(source.exported, read_manifest(source.exported))
        graphs = {name: open_part(source.exported / f"{name}.onnx") for name in PARTS}
        return graph_networks(backend, graphs, spec)
    networks = load_networks(source)
    graphs = {name: eager_graph(make_part(name, networks, spec)) for name in PARTS}
    graphs |= compiled_graphs(networks, spec, logger.warning)
    return graph_networks(backend, graphs, spec)


def backend_record(networks: Networks) -> dict[str, str]:
    """Returns the name of what runs networks, and the versions of what computes in it."""
    name = networks.dit.backend if isinstance(networks.dit, GraphDiT) else "torch"
    found = {"name": name, "torch": torch.__version__}
    if name == "onnx":
        found["onnxruntime"] = importlib.metadata.version("onnxruntime")
    return found
