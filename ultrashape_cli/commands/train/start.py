"""`ushape train` itself: opens or continues the run, trains here or in several processes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.ui import UI

WORKER = "ultrashape_cli.commands.train.worker"


def start(ui: UI, resolved: Resolved, run: RunFolder, plan: dict[str, Any], *, force: bool) -> None:
    """Trains a run to its end, and says what comes next; exits with the code of a signal.

    Args:
        ui: Where it is said.
        resolved: Settings and where they come from.
        run: Its folder.
        plan: From `preflight`; kept in the run.
        force: Make the run anew.
    """
    steps = train_to_end(ui, resolved, run, plan, force=force)
    if steps is not None:
        _conclude(ui, run, resolved.config, steps=steps)


def train_to_end(
    ui: UI,
    resolved: Resolved,
    run: RunFolder,
    plan: dict[str, Any],
    *,
    force: bool,
    again: str | None = None,
) -> int | None:
    """Trains a run to its end; exits with the code of a signal.

    The arguments are those of `start`, and `again` the command that goes on after a signal.

    Returns:
        How many steps the run has, 0 where it was finished before; None in a process that does not
        write.
    """
    from ultrashape_cli.processes import is_main_process
    from ultrashape_cli.training.ownership import owning

    main = is_main_process() and resolved.config.launch.machine_rank == 0
    with owning(run) if main else nullcontext():
        return _train(ui, resolved, run, plan, force, main, again)


def _train(
    ui: UI,
    resolved: Resolved,
    run: RunFolder,
    plan: dict[str, Any],
    force: bool,
    main: bool,
    again: str | None,
) -> int | None:
    from ultrashape_cli.files import write_json
    from ultrashape_cli.processes import is_distributed_child
    from ultrashape_cli.training.generations import REWARDED
    from ultrashape_cli.training.guards import fallen_before
    from ultrashape_cli.training.launch import launch_processes, wait_for_run_folder
    from ultrashape_cli.training.setup import open_run, record_origins

    config = resolved.config
    child = is_distributed_child()
    copy = config.train.resume_from or config.train.mirror
    if main and not child and copy and not force:
        from ultrashape_cli.training.mirror import Mirror

        Mirror(copy).bring(run, ui.info)
    if config.train.objective in REWARDED and not force:
        fallen = fallen_before(run.metrics, config.reward.max_drop)
        if fallen:
            raise fallen
    # Processes started by others decide together, in the trainer.
    done = None if child or force else finished_checkpoint(run, config.train.steps)
    if main:
        typed = ["ushape", *sys.argv[1:]]
        for line in open_run(run, config, force=force, command=typed, finished=done is not None):
            ui.warn(f"since this run began or was continued last: {line}")
        if done is None:
            record_origins(run, resolved.origins)
            write_json(run.plan, plan)
    outputs = {"run": str(run.root)}
    if done is not None:
        ui.info(f"{done} is there: nothing left to train")
        if config.train.mirror:
            from ultrashape_cli.training.mirror_writer import send_last

            send_last(config.train.mirror, run, config.train.keep_checkpoints, ui.warn)
        return 0

    def on_signal() -> None:
        ui.warn("Stopping after this step; press Ctrl-C again to quit without saving")

    if config.launch.num_processes > 1 and not child:
        wait_for_run_folder(run)
        code = launch_processes(run, config, WORKER, on_signal)
    else:
        code = _train_here(ui, run, config, on_signal)
    if code:
        go_on = ("ushape", "train", "--config", str(run.config), "--out", str(run.root))
        ui.hint(again or shlex.join(go_on))
        ui.result(status="stopped", outputs=outputs)
        raise typer.Exit(code)
    return int(run.read_status().get("step", 0)) if main else None


def finished_checkpoint(run: RunFolder, steps: int) -> Path | None:
    """Returns the checkpoint of the last step, or a later one, if it is whole."""
    from ultrashape_cli.runs import checkpoint_step, complete_checkpoints, damaged_file

    last = complete_checkpoints(run.checkpoints)[-1:]
    whole = [p for p in last if checkpoint_step(p) >= steps and damaged_file(p) is None]
    return whole[0] if whole else None


def _conclude(ui: UI, run: RunFolder, config: Config, *, steps: int) -> None:
    """Says what comes next; exits with 1 where `--overfit` was not passed."""
    from ultrashape_cli.training.overfit import judge

    more: dict[str, Any] = {}
    passed = True
    if config.train.overfit:
        verdict = judge(run.metrics)
        passed = verdict.passed
        ui.info(verdict.text)
        more["overfit"] = verdict._asdict()
        if not passed:
            ui.hint(
                f"repeat the command with more than --steps {config.train.steps}; if the loss "
                "stays, look at the samples and views of these assets"
            )
    name = shlex.quote(str(run.root))
    following = f"refine MESH IMAGE --checkpoint {name}"
    if config.train.stage == "vae":
        model, data = config.train.model, shlex.quote(config.train.data)
        following = f"train --data {data} --model {model} --init {name}"
    if passed:
        ui.hint(f"ushape {following}")
    ui.result(
        status="ok" if passed else "failed",
        inputs={"data": config.train.data},
        outputs={"run": str(run.root)},
        counts={"steps": steps},
        **more,
    )
    if not passed:
        raise typer.Exit(1)


def _train_here(ui: UI, run: RunFolder, config: Config, on_signal: Callable[[], None]) -> int:
    from ultrashape_cli.training.progress import Progress, describe
    from ultrashape_cli.training.worker import train_run

    with ui.progress("train", config.train.steps) as bar:
        begun = False

        def on_step(progress: Progress) -> None:
            nonlocal begun
            if not begun:
                begun = True
                # Neither the time to load nor steps of former processes count.
                bar.begin(progress.step)
            note = describe(progress).split("  ", 1)[1]
            bar.update(progress.step, note)

        return train_run(run, config, on_step=on_step, on_signal=on_signal, tell=ui.info)
