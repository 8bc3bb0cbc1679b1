"""`ushape refine --batch`: many meshes with one model."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ultrashape_cli.commands.refine.coarse import coarse_of_many, recipe_for_many
from ultrashape_cli.commands.refine.plan import planned

if TYPE_CHECKING:
    import torch

    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.inference.batch import Event, Outcome
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI

STOPPING = "Stopping after this mesh; press Ctrl-C again to quit at once"


def refine_batch(ui: UI, request: Request, source: WeightSource, resolved: Resolved) -> None:
    """Refines the jobs of a CSV or a folder, writes a report, exits 1 if any failed."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.finishing.write import check_finish
    from ultrashape_cli.inference.batch import Outcome, failure_record
    from ultrashape_cli.inference.batch_jobs import read_jobs, unpaired
    from ultrashape_cli.inference.coarse_batch import is_ready
    from ultrashape_cli.inference.files import check_writable
    from ultrashape_cli.processes import is_distributed_child

    assert request.batch is not None
    if resolved.config.refine.region.startswith("mask"):
        raise UsageError(
            "a mask is painted for one mesh, and --batch has many",
            hint="box, sphere or side, or one mesh at a time",
        )
    out = request.out or Path("refined")
    jobs = read_jobs(
        *(request.batch, out, resolved.config.seed),
        metrics=request.metrics,
        keep_full=request.keep_full,
        coarse=recipe_for_many(request, resolved),
    )
    check_outputs(
        [path for job in jobs for path in (*job.outputs, failure_record(out, job))],
        [request.batch, *source.inputs, *(path for job in jobs for path in job.inputs)],
        hint=f"another folder: -o {out.with_name(f'{out.name}_new')}, or other names in the CSV",
    )
    alone = [] if request.coarse_with else unpaired(request.batch, jobs)
    if alone and request.out is not None:
        alone = [path for path in alone if not path.is_relative_to(request.out)]
    if alone:
        ui.warn(f"{len(alone)} meshes have no image of their name, such as {alone[0]}")
    jobs = jobs[: request.limit]
    # Once for all, and not as many failures as there are meshes.
    check_finish(resolved.config.refine, out / "any.glb")
    if request.dry_run:
        _show_plan(ui, jobs, source, resolved.config)
        return
    child = is_distributed_child()
    if not child:
        check_writable(out)
        if request.force:
            for job in jobs:
                job.record.unlink(missing_ok=True)
    config, ready = resolved.config, jobs
    failed: dict[str, str] = {}
    code, fast = 0, request.fail_fast
    if request.coarse_with:
        if not child:
            failed, code = coarse_of_many(ui, jobs, out, fast)
        # Neither what failed nor what another command has in hand.
        ready = [job for job in jobs if is_ready(job, out)]
    if code or (failed and fast):
        outcome = Outcome()
    elif request.num_processes > 1 and not child:
        outcome, code = _in_processes(ui, ready, out, source, config)
    else:
        outcome, code = _here(ui, ready, out, source, config, fast)
    outcome.failed.update(failed)
    if child:
        # The process that started this one reports; an exit code would stop the others.
        return
    _conclude(ui, jobs, out, outcome, code, request.batch)


def _show_plan(ui: UI, jobs: list[Job], source: WeightSource, config: Config) -> None:
    from ultrashape_cli.inference.files import is_made
    from ultrashape_cli.inference.job import recipe_of

    missing = [job for job in jobs if not all(path.is_file() for path in job.inputs)]
    there = [job for job in jobs if job not in missing]
    begun = [job for job in there if job.mesh.exists()]
    made = [job for job in begun if is_made(job, recipe_of(job, source, config))]
    for job in missing[:10]:
        lost = ", ".join(str(path) for path in job.inputs if not path.is_file())
        ui.warn(f"{job.name}: {lost} is missing")
    for job in [job for job in there if job not in made][:20]:
        ui.info(f"would refine {job.mesh} with {job.image} into {job.target}")
    counts = {
        "planned": len(there) - len(made),
        "skipped": len(made),
        "failed": len(missing),
    }
    ui.table(tuple(counts), [tuple(counts.values())])
    ui.result(counts=counts)


def _here(
    ui: UI, jobs: list[Job], out: Path, source: WeightSource, config: Config, fail_fast: bool
) -> tuple[Outcome, int]:
    from ultrashape_cli.inference.batch import run_batch
    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.interrupts import SignalFlag

    done = 0
    with (
        SignalFlag(lambda: ui.warn(STOPPING)) as flag,
        ui.progress("refine", len(jobs)) as bar,
    ):

        def on_event(event: Event) -> None:
            nonlocal done
            done += 1
            bar.update(done, event.job.name)
            if event.state == "failed":
                ui.warn(f"{event.job.name}: {event.message}")

        def load() -> Refiner:
            device = own_device(config.device)
            # Every mesh may have as many tokens as the settings allow.
            own = config.refine
            views = own.max_views if any(job.views for job in jobs) else 1
            settings = planned(ui, source, own, device, own.tokens, views)
            return Refiner.load(source, settings, device)

        outcome = run_batch(
            *(jobs, out, source, config, load),
            on_event=on_event,
            stop=lambda: bool(flag),
            fail_fast=fail_fast,
        )
    return outcome, flag.exit_code if flag else 0


def own_device(name: str) -> torch.device:
    """Returns the device of a setting; of several processes each takes its own GPU."""
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.processes import is_distributed_child

    device = choose_device(name)
    if device.type == "cuda" and is_distributed_child():
        import torch

        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        # Or every process would keep a context on the first card.
        torch.cuda.set_device(device)
    return device


def _in_processes(
    ui: UI, jobs: list[Job], out: Path, source: WeightSource, config: Config
) -> tuple[Outcome, int]:
    """Starts processes that share the jobs; returns what they have left behind."""
    from ultrashape_cli.errors import UShapeError
    from ultrashape_cli.files import read_json
    from ultrashape_cli.inference.batch import Outcome, failure_record
    from ultrashape_cli.inference.files import is_made
    from ultrashape_cli.inference.job import recipe_of
    from ultrashape_cli.processes import supervise

    def made() -> set[str]:
        there = [job for job in jobs if job.record.exists() and job.mesh.exists()]
        return {job.name for job in there if is_made(job, recipe_of(job, source, config))}

    before = made()
    # A free port, so that two batches on one machine do not meet.
    config = replace(config, launch=replace(config.launch, main_process_port=0))
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    flag, code = supervise(
        *("ultrashape_cli", arguments, config.launch),
        device=config.device,
        on_signal=lambda: ui.warn(STOPPING),
    )
    if code and not flag:
        raise UShapeError(
            f"the processes failed with exit code {code}", hint="see their messages above"
        )
    after = made()
    failed = {}
    for job in jobs:
        state = read_json(failure_record(out, job)) or {}
        if job.name not in after and state.get("status") == "failed":
            failed[job.name] = str(state["message"])
    outcome = Outcome(sorted(after - before), sorted(after & before), failed)
    return outcome, flag.exit_code if flag else 0


def _conclude(ui: UI, jobs: list[Job], out: Path, outcome: Outcome, code: int, batch: Path) -> None:
    from ultrashape_cli.inference.batch_report import write_batch_report

    report = write_batch_report(jobs, out)
    counts = {
        "made": len(outcome.made),
        "skipped": len(outcome.skipped),
        "failed": len(outcome.failed),
    }
    ui.table(tuple(counts), [tuple(counts.values())])
    if code:
        ui.hint("repeat the command to go on")
    status = "stopped" if code else "failed" if outcome.failed else "ok"
    ui.result(
        status=status,
        inputs={"batch": str(batch)},
        outputs={"folder": str(out), "report": str(report)},
        counts=counts,
        failures=outcome.failed,
    )
    if code or outcome.failed:
        raise typer.Exit(code or 1)
