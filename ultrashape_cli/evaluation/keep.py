"""Several generations of each asset, kept with their rewards for training (`--keep`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.config.schema import EvaluateConfig, RefineConfig
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.errors import AssetError, DependencyError, DiskError, MeshError, UShapeError
from ultrashape_cli.evaluation.evaluate import Progress
from ultrashape_cli.evaluation.rows import Asset, coarse_of
from ultrashape_cli.inference.course import Hold
from ultrashape_cli.inference.prepared import Prepared, redrawn
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.view_files import seen_from
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.rewards.decoded import measure_decoded
from ultrashape_cli.rewards.generations import Generation, Judged, KeptGenerations
from ultrashape_cli.rewards.measures import Picture
from ultrashape_cli.rewards.table import REWARDS, Evidence, require
from ultrashape_cli.runs import digest


@dataclass(frozen=True, slots=True)
class Kept:
    """What was made."""

    made: int
    skipped: int
    """Assets that were there already."""
    failures: dict[str, str]
    """Asset -> why there is none of it."""
    without_mesh: int
    """Generations, of those there too, that did not decode."""


def rewards_here() -> list[str]:
    """Returns the rewards that can be measured on this machine."""
    found = []
    for name in REWARDS:
        try:
            require([name])
        except DependencyError:
            continue
        found.append(name)
    return found


def keep_generations(
    assets: Sequence[Asset],
    source: WeightSource,
    refine: RefineConfig,
    settings: EvaluateConfig,
    kept: KeptGenerations,
    *,
    device: torch.device,
    seed: int,
    count: int,
    progress: Progress = lambda done, what: None,
) -> Kept:
    """Makes generations of assets; those that are there already are not made again.

    Of a flow that starts from noise the seeds differ in the noise alone, so that all are of one
    condition; of one that starts at the coarse mesh, in the voxels, or, with
    `evaluate.keep_noise`, in what is added along the way. The flow goes its whole way, whatever
    `refine.strength` is, and meshes are judged as they are decoded, before loose parts are removed.

    Args:
        assets: With images.
        source: The weights.
        refine: How they are sampled.
        settings: How coarse meshes are made.
        kept: Where they are kept.
        device: Where networks run.
        seed: Of the first generation.
        count: Generations of each asset.
        progress: Called before each asset.

    Raises:
        UsageError: The folder holds generations of other weights or settings.
        DiskError: It cannot be written.
    """
    refine = replace(refine, frame="normalised", strength=1.0, best_of=1)
    names = rewards_here()
    given = {"given_coarse": True} if any(asset.coarse for asset in assets) else {}
    kept.begin(_about(source, refine, settings, seed, count, names) | given)
    refiner: Refiner | None = None
    made, skipped, failures = 0, 0, {}
    for done, asset in enumerate(assets):
        progress(done, asset.id)
        if kept.has(asset.id, inputs_of(asset)):
            skipped += 1
            continue
        refiner = refiner or Refiner.load(source, refine, device)
        try:
            _keep(asset, refiner, settings, kept, seed, count, names)
        except DiskError:  # it would fail for every further one, after all the work
            raise
        except UShapeError as error:
            failures[asset.id] = error.message
            continue
        made += 1
    none = sum(kept.rewards(asset.id).count(None) for asset in assets if asset.id not in failures)
    return Kept(made, skipped, failures, none)


def inputs_of(asset: Asset) -> dict[str, str]:
    """Returns the hash of each file that the generations of an asset are made from."""
    files = {"truth": asset.truth, "image": asset.image, "coarse": asset.coarse}
    return {name: digest(file) for name, file in files.items() if file and file.is_file()}


def weight_digests(source: WeightSource) -> dict[str, str]:
    """Returns the hash of each file of weights, by name."""
    return {file.name: digest(file) for file in sorted(set(source.weight_files))}


def spread(kept: KeptGenerations) -> dict[str, dict[str, float]]:
    """Returns by reward its mean over all generations, and the mean of each group's best and worst.

    Of each reward by itself: what a choice by it alone would gain.
    """
    found: dict[str, list[tuple[float, float, float]]] = {}
    for asset in kept.assets():
        rewards = kept.rewards(asset)
        for name in next((list(values) for values in rewards if values), []):
            values = [v[name] for v in rewards if v and v[name] is not None]
            if values:
                numbers = np.asarray(values, np.float64)
                found.setdefault(name, []).append((numbers.mean(), numbers.max(), numbers.min()))
    return {
        name: dict(zip(("mean", "best", "worst"), np.mean(rows, axis=0).tolist(), strict=True))
        for name, rows in found.items()
    }


def _about(
    source: WeightSource,
    refine: RefineConfig,
    settings: EvaluateConfig,
    seed: int,
    count: int,
    names: list[str],
) -> dict[str, Any]:
    # Where and how fast they are made is not what they are.
    hidden = {"memory", "max_memory_gib", "compile", "attention", "backend", "chunk_size", "dtype"}
    coarse = {key: value for key, value in asdict(settings).items() if key.startswith("coarse_")}
    return {
        "model": source.model,
        "weights": weight_digests(source),
        "distilled": source.distilled.as_dict() if source.distilled else None,
        "refine": {k: _plain(v) for k, v in asdict(refine).items() if k not in hidden},
        "coarse": coarse,
        "noise": settings.keep_noise,
        "seed": seed,
        "count": count,
        "rewards": names,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _keep(
    asset: Asset,
    refiner: Refiner,
    settings: EvaluateConfig,
    kept: KeptGenerations,
    seed: int,
    count: int,
    names: list[str],
) -> None:
    if asset.image is None:
        raise AssetError(f"asset `{asset.id}` has no image", hint="ushape render DATA")
    truth, rgba = load_mesh(asset.truth), load_rgba(asset.image)
    prepared = refiner.prepare(coarse_of(asset, truth, settings), seed)
    picture = Picture(rgba, *seen_from(asset.image))
    evidence = Evidence(truth=truth, before=prepared.mesh, views=[picture])
    context = refiner.condition(rgba)
    made = []
    for number in range(count):
        one = _seeded(prepared, seed + number, refiner, settings.keep_noise)
        generation = _generate(one, refiner, context, settings.keep_noise)
        try:
            rewards = measure_decoded(refiner, generation.latents, names, evidence)
            made.append(Judged(seed + number, generation, rewards))
        except MeshError as error:
            made.append(Judged(seed + number, generation, None, error.message))
    kept.write(asset.id, torch.tensor(rgba), picture[1:], made, inputs_of(asset))


def _seeded(prepared: Prepared, seed: int, refiner: Refiner, noise: float) -> Prepared:
    """Returns the mesh with what a seed draws; the same voxels where noise tells seeds apart."""
    if refiner.spec.start == "noise" or noise:
        return replace(prepared, seed=seed)
    return redrawn(prepared, seed, refiner.spec, refiner.config)


@torch.inference_mode()
def _generate(
    prepared: Prepared,
    refiner: Refiner,
    context: tuple[Tensor | None, list[int] | None],
    noise: float,
) -> Generation:
    start, _ = refiner.course(prepared)
    hold = _stirred(prepared.seed, noise, refiner.config.steps) if noise else None
    latents = refiner.sample(
        *(prepared.voxels, start, *context, lambda stage, done, total: None), hold=hold
    )
    from_coarse = start[0] if refiner.spec.start == "coarse" else None
    return Generation(latents[0], prepared.voxels[0], from_coarse)


def _stirred(seed: int, noise: float, steps: int) -> Hold:
    """Returns what adds noise after each step but the last, of variance `noise`^2 over the way."""
    generator = torch.Generator().manual_seed(seed)
    share = noise / max(steps - 1, 1) ** 0.5

    def hold(t: float, x: Tensor) -> Tensor:
        if t >= 1:
            return x
        return x + share * torch.randn(x.shape, generator=generator).to(x)

    return hold
