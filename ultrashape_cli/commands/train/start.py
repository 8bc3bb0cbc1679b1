"""`ushape train` itself: opens or continues the run, trains here or in several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.ui import UI

WORKER = "ultrashape_cli.commands.train.worker"


def start(ui: UI, resolved: Resolved, run: RunFolder, force: bool) -> None:
    """Trains a run to its end, and says what comes next; exits with the code of a signal."""
    import sys

    from ultrashape_cli.processes import is_distributed_child, is_main_process
    from ultrashape_cli.runs import checkpoint_name, complete_checkpoints
    from ultrashape_cli.training.launch import launch_processes, wait_for_run_folder
    from ultrashape_cli.training.setup import open_run, record_origins

    config = resolved.config
    child = is_distributed_child()
    main = is_main_process() and config.launch.machine_rank == 0
    if main:
        open_run(run, config, force=force, command=["ushape", *sys.argv[1:]])
        record_origins(run, resolved.origins)
    outputs = {"run": str(run.root)}
    final = run.checkpoints / checkpoint_name(config.train.steps)
    # Processes started by others decide together, in the trainer.
    if not child and final in complete_checkpoints(run.checkpoints):
        ui.info(f"{final} is there: nothing left to train")
        ui.result(inputs={"data": config.train.data}, outputs=outputs, counts={"steps": 0})
        return

    def on_signal() -> None:
        ui.warn("Stopping after this step; press Ctrl-C again to quit without saving")

    if config.launch.num_processes > 1 and not child:
        wait_for_run_folder(run)
        code = launch_processes(run, config, WORKER, on_signal)
    else:
        code = _train_here(ui, run, config, on_signal)
    status = run.read_status()
    if code:
        ui.hint(f"ushape train --config {run.config} --out {run.root}")
        ui.result(status="stopped", outputs=outputs)
        raise typer.Exit(code)
    if main and config.train.overfit:
        _judge_overfit(ui, run, config)
    if main:
        vae = config.train.stage == "vae"
        next_command = "train --init" if vae else "refine MESH IMAGE --checkpoint"
        ui.hint(f"ushape {next_command} {run.root}")
        ui.result(
            inputs={"data": config.train.data},
            outputs=outputs,
            counts={"steps": int(status.get("step", 0))},
        )


def _judge_overfit(ui: UI, run: RunFolder, config: Config) -> None:
    """Says whether the network memorised its few assets, which shows that training works."""
    from ultrashape_cli.training.overfit import judge

    verdict = judge(run.metrics)
    ui.info(verdict.text)
    if not verdict.passed:
        ui.hint(
            f"more --steps than {config.train.steps:,}, or another train.learning_rate; if the "
            "loss stays, look at the samples and views of these assets"
        )


def _train_here(ui: UI, run: RunFolder, config: Config, on_signal: Callable[[], None]) -> int:
    from ultrashape_cli.training.progress import Progress, describe
    from ultrashape_cli.training.worker import train_run

    with ui.progress("train", config.train.steps) as bar:

        def on_step(progress: Progress) -> None:
            note = describe(progress).split("  ", 1)[1]
            bar.update(progress.step, note)

        return train_run(run, config, on_step=on_step, on_signal=on_signal)
