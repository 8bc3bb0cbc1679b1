"""One training process: builds everything from the run folder and trains.

Runs inside `ushape train` for a single process, and in each of several under accelerate.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from ultrashape_cli.config.profiles import get_profile
from ultrashape_cli.config.schema import Config
from ultrashape_cli.devices import choose_device
from ultrashape_cli.errors import TrainingError, UShapeError
from ultrashape_cli.files import read_json
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.processes import forget_others
from ultrashape_cli.runs import RunFolder, best_checkpoint, record_event
from ultrashape_cli.training.build import build_trainer
from ultrashape_cli.training.memory.plan import lower_strategy, plan_run
from ultrashape_cli.training.pace import Pace
from ultrashape_cli.training.progress import Progress
from ultrashape_cli.training.trainer import Trainer


def train_run(
    run: RunFolder,
    config: Config,
    *,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_signal: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda line: None,
) -> int:
    """Trains the run to its end; returns 0, or 130/143 when a signal stopped it.

    `tell` gets one line once the first steps have corrected the estimate.

    Raises:
        UShapeError: The run cannot start or go on; status.json says `failed`.
        StorageError: It has ended, and its newest checkpoint is not where it is to be copied.
    """
    started = time.time()
    accelerator = start_accelerator(config)
    trainer = None
    with _log_file(run, accelerator.process_index):
        try:
            with SignalFlag(on_signal) as stop:
                pace = Pace(_planned_seconds(run), tell)

                def on_every_step(progress: Progress) -> None:
                    pace(progress)
                    on_step(progress)

                trainer = build_trainer(config, run, accelerator, on_every_step, tell)
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
        trainer.require_copied()
    # Not `accelerator.end_training()`: it gives up the process group, and gloo's destructor waits
    # for ever now and then. The processes end by `processes.leave`.
    return 0 if finished else stop.exit_code


def start_accelerator(config: Config) -> Accelerator:
    """Returns the accelerator after checking that the world is the one asked for.

    accelerate starts a single process in several cases where more were asked for, and the run
    would then silently train something else.
    """
    if told := forget_others():
        logging.getLogger(__name__).warning("%s", told)
    # A save to a slow volume takes longer than the ten minutes that NCCL waits by itself.
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=60))
    accelerator = Accelerator(
        cpu=choose_device(config.device).type == "cpu",
        mixed_precision="no",
        kwargs_handlers=[patience],
    )
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


def _planned_seconds(run: RunFolder) -> float:
    plan = read_json(run.plan)
    return float(plan.get("seconds_per_step", 0.0)) if isinstance(plan, dict) else 0.0


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
