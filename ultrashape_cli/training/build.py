"""One training process: builds everything from the run folder and trains.

Runs inside `ushape train` for a single process, and as
`python -m ultrashape_cli.training.build RUN` under accelerate for several.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ultrashape_cli.config.profiles import get_profile
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.dataset import Item, SampleOrder, ShapeDataset, make_loader
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.devices import choose_device
from ultrashape_cli.errors import TrainingError, UShapeError
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import load_networks
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.monitoring.trackers import Trackers, make_trackers
from ultrashape_cli.runs import RunFolder, record_event
from ultrashape_cli.training.base import base_source
from ultrashape_cli.training.checkpoint import best_checkpoint
from ultrashape_cli.training.curriculum import ImageSizes, parse_curriculum
from ultrashape_cli.training.memory.plan import lower_strategy, plan_run
from ultrashape_cli.training.memory.strategies import whole_weights
from ultrashape_cli.training.mesh_validation import MeshValidation
from ultrashape_cli.training.networks import build_networks
from ultrashape_cli.training.objectives.flow import FlowObjective, VAEObjective, VAETrainee
from ultrashape_cli.training.objectives.latents import LatentCache
from ultrashape_cli.training.progress import Progress, describe
from ultrashape_cli.training.trainer import Trainer
from ultrashape_cli.training.validation import make_validation

MAX_VALIDATION_ITEMS = 16
VALIDATION_COUNTER = 2**40
"""First sample counter of validation items, beyond any training counter."""


def train_run(
    run: RunFolder,
    config: Config,
    *,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_signal: Callable[[], None] = lambda: None,
) -> int:
    """Trains the run to its end; returns 0, or 130/143 when a signal stopped it.

    Raises:
        UShapeError: The run cannot start or go on; status.json says `failed`.
    """
    started = time.time()
    accelerator = start_accelerator(config)
    trainer = None
    with _log_file(run, accelerator.process_index):
        try:
            with SignalFlag(on_signal) as stop:
                trainer = build_trainer(config, run, accelerator, on_step)
                if accelerator.is_main_process:
                    record_event(run, "start", step=trainer.step, time=started)
                finished = trainer.train(lambda: bool(stop))
        except torch.OutOfMemoryError as error:
            failure = _out_of_memory(config, error)
            if accelerator.is_main_process:
                _fail(run, trainer, failure)
            raise failure from error
        except BaseException as error:
            if accelerator.is_main_process:
                _fail(run, trainer, error)
            raise
    if accelerator.is_main_process:
        state = "finished" if finished else "stopped"
        run.write_status(state, step=trainer.step, steps=config.train.steps)
        record_event(run, "finish" if finished else "stop", step=trainer.step)
        trainer.trackers.alert(state, f"{run.root.name} at step {trainer.step}")
        trainer.trackers.finish(state, best_checkpoint(run.checkpoints))
    accelerator.end_training()
    return 0 if finished else stop.exit_code


def start_accelerator(config: Config) -> Accelerator:
    """Returns the accelerator after checking that the world is the one asked for.

    accelerate starts a single process in several cases where more were asked for, and the run
    would then silently train something else.
    """
    accelerator = Accelerator(cpu=choose_device(config.device).type == "cpu")
    wanted = int(os.environ.get("WORLD_SIZE", config.launch.num_processes))
    if accelerator.num_processes > 1:
        one = torch.ones((), device=accelerator.device)
        present = int(accelerator.reduce(one, reduction="sum"))
    else:
        present = 1
    if not present == accelerator.num_processes == wanted:
        raise TrainingError(
            f"asked for {wanted} processes, got {accelerator.num_processes} "
            f"({present} answered, {accelerator.distributed_type})",
            hint="start with `ushape train --num-processes N`, torchrun or accelerate launch",
        )
    return accelerator


def build_trainer(
    config: Config,
    run: RunFolder,
    accelerator: Accelerator,
    on_step: Callable[[Progress], None],
) -> Trainer:
    """Builds networks, data, objective and validation of a run."""
    settings = config.train
    spec = model_spec(settings.model)
    device = accelerator.device
    torch.manual_seed(config.seed)
    if accelerator.is_main_process:
        base_source(run, config)
    accelerator.wait_for_everyone()
    source = base_source(run, config)
    component, net, objective = build_networks(
        config,
        partial(load_networks, source),
        device,
        cache=LatentCache(run.root / "latents") if settings.latent_variants else None,
    )
    stages = parse_curriculum(
        settings.curriculum,
        num_latents=settings.num_latents,
        image_size=settings.image_size or spec.conditioner.image_size,
    )
    sizes = ImageSizes(
        stages, settings.microbatch * settings.accumulation * accelerator.num_processes
    )
    dataset = Dataset(Path(settings.data))

    def batches(start: int) -> Iterator[Item]:
        ids = dataset.read_split("train")
        items = _items(config, dataset, ids[: settings.overfit or None], sizes, augment=True)
        order = SampleOrder(
            len(items),
            seed=config.seed,
            start=start,
            microbatch=settings.microbatch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        cuda = device.type == "cuda"
        return iter(make_loader(items, order, num_workers=settings.num_workers, pin_memory=cuda))

    held_out = dataset.read_split("val")[:MAX_VALIDATION_ITEMS]
    final = ImageSizes(stages[-1:], 1)
    validation_items = _items(config, dataset, held_out, final)

    def validation_batches() -> Iterator[Item]:
        for index in range(len(held_out)):
            yield torch.utils.data.default_collate(
                [validation_items[VALIDATION_COUNTER + index, index]]
            )

    meshes = None
    if held_out and settings.validate_every_steps and settings.validate_meshes:
        tokens = stages[-1].num_latents
        meshes = mesh_validation(config, run, dataset, objective, accelerator, tokens)
        meshes.prepare(component.to(device).eval())
    validate = make_validation(
        objective,
        validation_batches,
        wrap=_wrap_vae if settings.stage == "vae" else _wrap_nothing,
        device=device,
        dtype=settings.dtype,
        meshes=meshes,
        mesh_every_steps=settings.validate_every_steps * settings.mesh_every_validations,
    )
    main = accelerator.is_main_process

    def trackers(step: int) -> Trackers:
        names = settings.trackers if main else ()
        return make_trackers(names, run, step=step, alerts=settings.tracker_alerts)

    dit = getattr(component, "dit", component)
    recomputed = getattr(dit, "checkpoint_blocks", 0) / spec.dit.depth
    return Trainer(
        config,
        run=run,
        net=net,
        component=component,
        objective=objective,
        batches=batches,
        accelerator=accelerator,
        stages=stages,
        validate=validate if held_out and settings.validate_every_steps else None,
        on_step=on_step,
        trackers=trackers,
        peak_tflops=get_profile(config.profile).peak_bf16_tflops if device.type == "cuda" else 0.0,
        recomputed=recomputed,
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
    whole = [a for a in held_out if dataset.mesh(a).is_file() and dataset.view_files(a)]
    return MeshValidation(
        config,
        run,
        dataset,
        whole[: config.train.validate_meshes],
        num_latents=num_latents,
        source=base_source(run, config),
        conditioner=getattr(objective, "conditioner", None),
        device=accelerator.device,
        gather=gather,
        share=(0, 1) if together else (rank, world),
        main=accelerator.is_main_process,
    )


def _items(
    config: Config, dataset: Dataset, ids: list[str], sizes: ImageSizes, *, augment: bool = False
) -> ShapeDataset:
    settings = config.train
    vae = settings.stage == "vae"
    return ShapeDataset(
        dataset,
        ids,
        seed=config.seed,
        surface_points=settings.surface_points,
        image_size=None if vae else sizes,
        query_points=settings.query_points if vae else 0,
        variants=settings.latent_variants,
        fixed_view=bool(settings.overfit),
        skip_bad=settings.skip_bad,
        coarse_points=settings.surface_points if augment and settings.voxel_coarse else 0,
        colour_jitter=settings.colour_jitter if augment else 0.0,
        crop_jitter=settings.crop_jitter if augment else 0.0,
    )


def _wrap_vae(net: nn.Module) -> nn.Module:
    assert isinstance(net, ShapeVAE)
    return VAETrainee(net)


def _wrap_nothing(net: nn.Module) -> nn.Module:
    return net


def _out_of_memory(config: Config, error: torch.OutOfMemoryError) -> TrainingError:
    """Returns the error that puts the plan beside what was measured, and names the way out."""
    plan = plan_run(config, get_profile(config.profile))
    measured = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    rows = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in plan.rows())
    return TrainingError(
        f"out of memory: planned {plan.device_bytes / 2**30:.1f} GiB ({rows}), "
        f"allocated up to {measured / 2**30:.1f} GiB ({str(error).splitlines()[0]})",
        hint=f"{lower_strategy(config) or 'a lower train.num_latents'} --out NEW_RUN",
    )


def _fail(run: RunFolder, trainer: Trainer | None, error: BaseException) -> None:
    message = error.message if isinstance(error, UShapeError) else f"{error!r}"
    # At a level that reaches the log file but not the terminal, which gets the one-line error.
    logging.getLogger(__name__).info("stopped: %s", message, exc_info=error)
    step = trainer.step if trainer else 0
    run.write_status("failed", step=step, error=message)
    record_event(run, "fail", step=step, message=message)
    if trainer:
        trainer.trackers.alert("failed", f"{run.root.name} at step {step}: {message}")
        trainer.trackers.finish("failed")


@contextlib.contextmanager
def _log_file(run: RunFolder, rank: int) -> Iterator[None]:
    handler = logging.FileHandler(run.log(rank), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("ultrashape_cli")
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def main() -> None:
    """Entry point under accelerate; the main process prints plain lines."""
    from ultrashape_cli.ui import UI

    ui = UI("train", progress=False)
    run = RunFolder(Path(sys.argv[1]))
    last = [0.0]

    def on_step(progress: Progress) -> None:
        if time.monotonic() - last[0] > 10 or progress.step == progress.steps:
            last[0] = time.monotonic()
            ui.info(describe(progress))

    try:
        sys.exit(train_run(run, resolve(file=run.config, environ={}).config, on_step=on_step))
    except UShapeError as error:
        ui.error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
