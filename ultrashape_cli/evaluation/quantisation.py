"""What quantised weights change: velocities, latents and meshes of held-out assets.

All is computed in fp32 and with the plain sampler, so that differences are those of the weights.
The yardstick is the same weights rounded to bf16.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from ultrashape_cli.config.schema import EvaluateConfig, RefineConfig
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.devices import synchronise
from ultrashape_cli.errors import AssetError, CheckpointError, MeshError
from ultrashape_cli.evaluation.rows import Asset, coarse_of
from ultrashape_cli.evaluation.scores import sign_of
from ultrashape_cli.evaluation.statistics import compare, estimate
from ultrashape_cli.evaluation.verdict import MEASURES
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.inference.memory import check_plan, limit_device, plan_refinement
from ultrashape_cli.inference.prepared import Prepared
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.speed import PLAIN, Path, relative_error
from ultrashape_cli.inference.velocity import NetworkVelocity
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.metering import size_of
from ultrashape_cli.models.quantised import QuantisedLinear
from ultrashape_cli.models.quantised_file import KINDS, Quantisation, quantisable_layers
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import WeightSource

MAX_ASSETS = 8
TIMES = (0.1, 0.35, 0.6, 0.85)
"""Where on the path velocities are compared."""
LAYER_ASSETS = 2
"""On which each layer is quantised alone; that takes a pass per layer, time and asset."""
PER_LAYER_BELOW = 100_000_000
"""Weights of a DiT up to which each layer is measured alone; of larger ones each block is."""
TARGET = 2.0
"""Error of the final latents, in those of rounding to bf16, that quantising should not exceed."""

Progress = Callable[[str], None]
"""What is measured next."""


@dataclass(slots=True)
class Case:
    """An asset as the networks see it, and what the weights in floating point made of it."""

    asset: Asset
    truth: Mesh
    prepared: Prepared
    start: Tensor  # [1, M, C]
    context: Tensor | None  # [1, L, X]
    lengths: list[int] | None
    states: list[tuple[float, Tensor]] = field(default_factory=list)
    """On its path, at `TIMES`."""
    velocities: list[Tensor] = field(default_factory=list)
    latents: Tensor | None = None


@dataclass(slots=True)
class Measured:
    """What one set of weights makes of all cases."""

    velocity: list[list[float]] = field(default_factory=list)
    """Relative error of each case at `TIMES`."""
    latent: list[float] = field(default_factory=list)
    """Relative error of the final latents of each case."""
    scores: list[dict[str, float]] = field(default_factory=list)
    """Of each mesh against the truth; none where the field had no surface."""
    seconds: list[float] = field(default_factory=list)
    """Of sampling."""
    memory: int = 0
    """Bytes: the most on a card; on a CPU those of the process at the end."""
    weights: int = 0
    """Bytes of the DiT."""


@dataclass(slots=True)
class Reference:
    """The weights in floating point, and what they made."""

    refiner: Refiner
    cases: list[Case]
    measured: Measured
    points: int
    """Samples of each mesh."""


def report_settings(refine: RefineConfig) -> RefineConfig:
    """Returns the settings with fp32, the plain sampler and the whole path."""
    whole = {"steps": refine.steps, "strength": 1.0, "frame": "normalised", "dtype": "fp32"}
    return replace(refine, **{**PLAIN, **whole})


def measure_reference(
    source: WeightSource,
    assets: Sequence[Asset],
    refine: RefineConfig,
    settings: EvaluateConfig,
    device: torch.device,
    seed: int,
    progress: Progress = lambda what: None,
) -> Reference:
    """Returns what the weights in floating point make of the assets.

    Args:
        source: The weights.
        assets: At most `MAX_ASSETS` are used.
        refine: From `report_settings`.
        settings: How coarse meshes are made and how finely meshes are compared.
        device: Where networks run.
        seed: Of everything random.
        progress: Called before each asset.

    Raises:
        OutOfMemory: No memory mode fits.
        AssetError: An asset has no image.
    """
    refiner = _load(source, refine, device)
    cases = []
    with torch.inference_mode():
        for asset in assets[:MAX_ASSETS]:
            if asset.image is None:
                raise AssetError(f"asset `{asset.id}` has no image")
            truth = load_mesh(asset.truth)
            prepared = refiner.prepare(coarse_of(asset, truth, settings), seed)
            context, lengths = refiner.condition(load_rgba(asset.image))
            start = refiner.start(prepared)
            cases.append(Case(asset, truth, prepared, start, context, lengths))
    measured = _measure(refiner, cases, settings.points, progress, "as it was", first=True)
    return Reference(refiner, cases, measured, settings.points)


def measure_quantised(
    reference: Reference,
    source: WeightSource,
    progress: Progress = lambda what: None,
    *,
    layers: bool = True,
) -> dict[str, Any]:
    """Returns, as plain values, what a quantised file changes.

    Args:
        reference: Of the weights that it was made from.
        source: The file.
        progress: Called before each part.
        layers: Quantise each layer alone, too.

    Raises:
        CheckpointError: The file is not quantised.
    """
    found = source.quantised
    if found is None:
        raise CheckpointError(f"`{source.files['dit']}` is not quantised")
    refiner = reference.refiner
    dit = refiner.networks.dit
    assert dit is not None
    names = [n for n in quantisable_layers(dit, found.scheme) if n not in found.skipped]
    # Only weights that stay where they are can be exchanged for others.
    alone = layers and refiner.placement.mode == "resident"
    by_layer = _each_alone(reference, names, found.scheme, progress) if alone else None
    with _replaced(dit, names, _in_bf16):
        rounded = _measure(refiner, reference.cases, reference.points, progress, "bf16")
    ours = _load(source, refiner.config, refiner.device)
    quantised = _measure(ours, reference.cases, reference.points, progress, found.scheme)
    del ours
    gc.collect()
    return _report(reference, found, rounded, quantised, by_layer)


def _load(source: WeightSource, config: RefineConfig, device: torch.device) -> Refiner:
    """Returns a refiner in the first memory mode that fits and leaves the weights as they are."""
    spec = model_spec(source.model)
    quantised = source.quantised
    plan = plan_refinement(spec, config, device, config.tokens, quantised=quantised)
    if plan.mode == "int8":
        fixed = replace(config, memory="sequential")
        plan = plan_refinement(spec, fixed, device, config.tokens, quantised=quantised)
    check_plan(plan, spec, config, device)
    limit_device(config, device)
    settings = replace(config, memory=plan.mode, chunk_size=plan.chunk_size)
    return Refiner.load(source, settings, device)


@torch.inference_mode()
def _measure(
    refiner: Refiner,
    cases: list[Case],
    points: int,
    progress: Progress,
    name: str,
    *,
    first: bool = False,
) -> Measured:
    """Samples, decodes and compares every case; the first weights are what others differ from."""
    result, device, dit = Measured(), refiner.device, refiner.networks.dit
    assert dit is not None
    result.weights = sum(map(size_of, (*dit.parameters(), *dit.buffers())))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for case in cases:
        progress(f"{name}: {case.asset.id}")
        path, started = Path(), time.perf_counter()

        def on_step(t: float, x: Tensor, path: Path = path) -> None:
            path.times.append(t)
            path.states.append(x)

        inputs = (case.prepared.voxels, case.start, case.context, case.lengths, _silent)
        latents = refiner.sample(*inputs, on_step=on_step)
        synchronise(device)
        result.seconds.append(time.perf_counter() - started)
        if first:
            case.latents, case.states = latents, [(t, path.at(t)) for t in TIMES]
            case.velocities = _velocities(refiner, case)
        assert case.latents is not None
        result.latent.append(relative_error(latents, case.latents))
        result.velocity.append(_errors(_velocities(refiner, case), case))
        result.scores.append(_scores(refiner, case, latents, points))
    cuda = device.type == "cuda"
    rss = psutil.Process().memory_info().rss
    result.memory = torch.cuda.max_memory_allocated(device) if cuda else rss
    return result


def _silent(*progress: object) -> None:
    pass


def _velocities(refiner: Refiner, case: Case) -> list[Tensor]:
    """Returns the guided velocity at the states of a case."""
    dit, config = refiner.networks.dit, refiner.config
    assert dit is not None
    with refiner.placement.using("dit"):
        voxels = case.prepared.voxels.to(refiner.device)
        inputs = (dit, case.context, case.lengths, voxels, config, refiner.device)
        velocity = NetworkVelocity(*inputs).guided()
        return [velocity(x, torch.full((1,), t, device=x.device)) for t, x in case.states]


def _errors(velocities: list[Tensor], case: Case) -> list[float]:
    return [relative_error(a, b) for a, b in zip(velocities, case.velocities, strict=True)]


def _scores(refiner: Refiner, case: Case, latents: Tensor, points: int) -> dict[str, float]:
    case.prepared.passes = refiner.passes
    try:
        mesh = refiner.finish(case.prepared, refiner.decode(latents, _silent)).mesh
        found = compare_meshes(mesh, case.truth, points)
    except MeshError:  # no surface: a result, and a bad one
        return {}
    return {name: found[name] for name in MEASURES if name in found}


@torch.inference_mode()
def _each_alone(
    reference: Reference, names: list[str], scheme: str, progress: Progress
) -> list[dict[str, Any]]:
    """Returns the errors of the velocity with each layer, or block, quantised alone."""
    dit = reference.refiner.networks.dit
    assert dit is not None
    size = sum(parameter.numel() for parameter in dit.parameters())
    groups: dict[str, list[str]] = {}
    for name in names:
        block = ".".join(name.split(".")[:2])
        groups.setdefault(name if size < PER_LAYER_BELOW else block, []).append(name)
    rows = []
    for group, layers in groups.items():
        progress(f"{group} alone")
        weights = sum(dit.get_parameter(f"{name}.weight").numel() for name in layers)
        with _replaced(dit, layers, lambda layer: QuantisedLinear(layer, KINDS[scheme])):
            found = [
                _errors(_velocities(reference.refiner, case), case)
                for case in reference.cases[:LAYER_ASSETS]
            ]
        errors = _means(found)
        rows.append(
            {
                "name": group,
                "weights": weights,
                "errors": errors,
                "mean": sum(errors) / len(errors),
            }
        )
    return rows


@contextmanager
def _replaced(
    dit: nn.Module, names: list[str], make: Callable[[nn.Linear], nn.Module]
) -> Iterator[None]:
    """Puts other layers in place of those named, inside the block."""
    kept: dict[str, nn.Linear] = {}
    try:
        for name in names:
            layer = dit.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            kept[name] = layer
            dit.set_submodule(name, make(layer))
        yield
    finally:
        for name, layer in kept.items():
            dit.set_submodule(name, layer)


def _in_bf16(layer: nn.Linear) -> nn.Module:
    """Returns a layer with its weight rounded to bf16."""
    with torch.device("meta"):
        rounded = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    rounded.weight = nn.Parameter(layer.weight.bfloat16().to(layer.weight.dtype), False)
    rounded.bias = layer.bias
    return rounded


def _means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def _report(
    reference: Reference,
    found: Quantisation,
    rounded: Measured,
    quantised: Measured,
    by_layer: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    config, plain = reference.refiner.config, reference.measured
    rows = {"as it was": plain, "bf16": rounded, found.scheme: quantised}
    yardstick = estimate(rounded.latent).mean
    ratio = estimate(quantised.latent).mean / yardstick if yardstick else None
    keys = ("steps", "guidance_scale", "tokens", "grid_resolution", "solver", "strength", "dtype")
    return {
        "scheme": found.scheme,
        "group": found.group,
        "skipped": list(found.skipped),
        "assets": [case.asset.id for case in reference.cases],
        "settings": {key: getattr(config, key) for key in keys},
        "device": str(reference.refiner.device),
        "velocity": {
            "times": list(TIMES),
            "bf16": _means(rounded.velocity),
            found.scheme: _means(quantised.velocity),
            "layers": by_layer,
        },
        "latent": {
            "bf16": asdict(estimate(rounded.latent)),
            found.scheme: asdict(estimate(quantised.latent)),
            "ratio": ratio,
            "target": TARGET,
            "within_target": ratio is not None and ratio <= TARGET,
        },
        "scores": {
            name: _paired(row.scores, plain.scores)
            for name, row in rows.items()
            if row is not plain
        },
        "seconds": {name: estimate(row.seconds).mean for name, row in rows.items()},
        "memory_gib": {name: row.memory / 2**30 for name, row in rows.items()},
        "dit_gib": {name: row.weights / 2**30 for name, row in rows.items()},
        "no_surface": {name: sum(not s for s in row.scores) for name, row in rows.items()},
    }


def _paired(
    ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """Returns means, difference with its interval and the test, over assets that both have."""
    result = {}
    for name in MEASURES:
        pairs = [(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) if a and b
                 and name in a]  # fmt: skip
        if pairs:
            found = compare([a for a, _ in pairs], [b for _, b in pairs], sign=sign_of(name))
            result[name] = asdict(found)
    return result
