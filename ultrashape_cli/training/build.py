"""From the settings of a run to its trainer: networks, data, objective, validation, trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ultrashape_cli.config.profiles import get_profile
from ultrashape_cli.config.schema import Config, TrainConfig
from ultrashape_cli.data.dataset import Item, SampleOrder, ShapeDataset, make_loader
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.devices import compute_dtype, empty_cache
from ultrashape_cli.models.registry import ModelSpec, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.monitoring.trackers import Trackers, make_trackers
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.base import base_source, deciding_base
from ultrashape_cli.training.checkpoint import checkpoint_writer
from ultrashape_cli.training.curriculum import ImageSizes, parse_curriculum
from ultrashape_cli.training.generations import GenerationDataset, Picks, find_picks
from ultrashape_cli.training.judge import GroupJudge
from ultrashape_cli.training.memory.strategies import whole_weights
from ultrashape_cli.training.mesh_validation import MeshValidation
from ultrashape_cli.training.mirror import Mirror
from ultrashape_cli.training.mirror_writer import MirrorWriter
from ultrashape_cli.training.networks import build_networks, load_trained
from ultrashape_cli.training.objectives.flow import FlowObjective
from ultrashape_cli.training.objectives.latents import LatentCache
from ultrashape_cli.training.objectives.tokens import TokenCache
from ultrashape_cli.training.objectives.vae import VAEObjective, VAETrainee
from ultrashape_cli.training.progress import Progress
from ultrashape_cli.training.provenance import open_training_data
from ultrashape_cli.training.trainer import Trainer
from ultrashape_cli.training.validation import Validate, make_validation

MAX_VALIDATION_ITEMS = 16
VALIDATION_COUNTER = 2**40
"""First sample counter of validation items, beyond any training counter."""


def build_trainer(
    config: Config,
    run: RunFolder,
    accelerator: Accelerator,
    on_step: Callable[[Progress], None],
    tell: Callable[[str], None] = lambda line: None,
) -> Trainer:
    """Builds networks, data, objective and validation of a run.

    `tell` gets a line where a checkpoint cannot be copied to `train.mirror`.
    """
    settings = config.train
    spec = model_spec(settings.model)
    device = accelerator.device
    cuda = device.type == "cuda"
    torch.manual_seed(config.seed)
    picks, dataset = find_picks(config), open_training_data(config)
    with deciding_base(run, config, accelerator) as source:
        component, net, objective = build_networks(
            config,
            partial(load_networks, source),
            device,
            cache=LatentCache(run.root / "latents") if settings.latent_variants else None,
            tokens=TokenCache(run.root / "tokens") if settings.token_cache else None,
            pick=picks,
            judge=lambda vae: GroupJudge(config, dataset, vae, device),
        )
    stages = parse_curriculum(
        settings.curriculum,
        num_latents=settings.num_latents,
        image_size=settings.image_size or spec.conditioner.image_size,
    )
    per_process = settings.microbatch * settings.accumulation
    sizes = ImageSizes(stages, per_process * accelerator.num_processes)

    def batches(start: int) -> Iterator[Item]:
        items = _training_items(config, dataset, sizes, picks)
        order = SampleOrder(
            len(items),
            seed=config.seed,
            start=start,
            microbatch=settings.microbatch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        return iter(make_loader(items, order, num_workers=settings.num_workers, pin_memory=cuda))

    held_out = dataset.read_split("val")[:MAX_VALIDATION_ITEMS]
    validate = None
    if held_out and settings.validate_every_steps:
        items = _items(config, dataset, held_out, ImageSizes(stages[-1:], 1))
        meshes = None
        if settings.validate_meshes:
            tokens = stages[-1].num_latents
            meshes = mesh_validation(config, run, dataset, objective, accelerator, tokens)
            meshes.prepare(partial(_start, config, source, component, device))
            empty_cache(device)
        validate = _validation(config, objective, items, meshes, device)
    main = accelerator.is_main_process

    def trackers(step: int) -> Trackers:
        names = settings.trackers if main else ()
        return make_trackers(names, run, step=step, alerts=settings.tracker_alerts)

    return Trainer(
        config,
        run=run,
        net=net,
        component=component,
        objective=objective,
        batches=batches,
        accelerator=accelerator,
        stages=stages,
        validate=validate,
        on_step=on_step,
        trackers=trackers,
        peak_tflops=get_profile(config.profile).peak_bf16_tflops if cuda else 0.0,
        recomputed=_recomputed(component, spec),
        writer=checkpoint_writer(settings, run, _mirror(settings, run, tell) if main else None),
    )


def _mirror(
    config: TrainConfig, run: RunFolder, tell: Callable[[str], None]
) -> MirrorWriter | None:
    if not config.mirror:
        return None
    mirror = Mirror(config.mirror)
    mirror.claim(run)
    return MirrorWriter(mirror, run, keep=config.keep_checkpoints, tell=tell)


def _recomputed(component: nn.Module, spec: ModelSpec) -> float:
    dit = getattr(component, "dit", component)
    return float(getattr(dit, "checkpoint_blocks", 0) / spec.dit.depth)


def _start(
    config: Config, source: WeightSource, component: nn.Module, device: torch.device
) -> nn.Module:
    """Returns the network with the weights that the run starts from.

    On a card they come in the dtype they compute in: those that train in fp32 are only sure to fit
    it once their strategy has placed them.
    """
    if device.type == "cpu":
        return component.eval()
    half = compute_dtype(config.train.dtype)
    return load_trained(config, partial(load_networks, source), device=device, dtype=half).eval()


def _validation(
    config: Config,
    objective: FlowObjective | VAEObjective,
    items: ShapeDataset,
    meshes: MeshValidation | None,
    device: torch.device,
) -> Validate:
    settings = config.train

    def batches() -> Iterator[Item]:
        for index in range(len(items)):
            yield torch.utils.data.default_collate([items[VALIDATION_COUNTER + index, index]])

    return make_validation(
        objective,
        batches,
        wrap=_wrap_vae if settings.stage == "vae" else _wrap_nothing,
        device=device,
        dtype=settings.dtype,
        meshes=meshes,
        mesh_every_steps=settings.validate_every_steps * settings.mesh_every_validations,
    )


def mesh_validation(
    config: Config,
    run: RunFolder,
    dataset: Dataset,
    objective: FlowObjective | VAEObjective,
    accelerator: Accelerator,
    num_latents: int,
) -> MeshValidation:
    """Returns what refines held-out assets, shared among the processes where it can be."""
    together = not whole_weights(config)
    rank, world = accelerator.process_index, accelerator.num_processes

    def gather(rows: dict[str, Any]) -> dict[str, Any]:
        if world == 1 or together:
            return rows
        found: list[dict[str, Any]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(found, rows)
        return {asset: row for part in found for asset, row in part.items()}

    held_out = dataset.read_split("val")
    whole = [a for a in held_out if dataset.has(dataset.mesh(a)) and dataset.view_files(a)]
    return MeshValidation(
        config,
        run,
        dataset,
        whole[: config.train.validate_meshes],
        num_latents=num_latents,
        source=base_source(run),
        conditioner=getattr(objective, "conditioner", None),
        device=accelerator.device,
        gather=gather,
        share=(0, 1) if together else (rank, world),
        main=accelerator.is_main_process,
    )


def _training_items(
    config: Config, dataset: Dataset, sizes: ImageSizes, picks: Picks | None
) -> ShapeDataset:
    settings = config.train
    if picks is None:
        ids = dataset.read_split("train")[: settings.overfit or None]
        return _items(config, dataset, ids, sizes, augment=True)
    return GenerationDataset(
        dataset,
        picks,
        seed=config.seed,
        surface_points=0,
        image_size=sizes,
        checksums=settings.token_cache,
        skip_bad=settings.skip_bad,
    )


def _items(
    config: Config, dataset: Dataset, ids: list[str], sizes: ImageSizes, *, augment: bool = False
) -> ShapeDataset:
    settings = config.train
    vae = settings.stage == "vae"
    from_coarse = not vae and model_spec(settings.model).start == "coarse"
    coarse = from_coarse or (augment and settings.voxel_coarse > 0)
    return ShapeDataset(
        dataset,
        ids,
        seed=config.seed,
        surface_points=settings.surface_points,
        image_size=None if vae else sizes,
        query_points=settings.query_points if vae or (augment and settings.field_loss) else 0,
        variants=settings.latent_variants,
        views=settings.views if augment else 1,
        # Weights that know cameras take an image without one for the front.
        fixed_view=bool(settings.overfit) or (settings.views > 1 and not augment),
        checksums=settings.token_cache,
        skip_bad=settings.skip_bad,
        coarse_points=settings.surface_points if coarse else 0,
        coarse_normals=from_coarse,
        colour_jitter=settings.colour_jitter if augment else 0.0,
        crop_jitter=settings.crop_jitter if augment else 0.0,
    )


def _wrap_vae(net: nn.Module) -> nn.Module:
    assert isinstance(net, ShapeVAE)
    return VAETrainee(net)


def _wrap_nothing(net: nn.Module) -> nn.Module:
    return net
