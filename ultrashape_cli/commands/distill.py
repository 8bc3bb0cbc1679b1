"""`ushape distill`: weights that need fewer passes, from weights that need many."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.settings import make_ui, resolve_settings, show_settings
from ultrashape_cli.commands.train import options as own
from ultrashape_cli.commands.train.preflight import preflight
from ultrashape_cli.commands.train.start import train_to_end
from ultrashape_cli.commands.weights.options import attribute

if TYPE_CHECKING:
    from ultrashape_cli.config.distilled import Distilled
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.ui import UI

MOST_EVALUATIONS = 24
"""Of the first phase that takes steps away; each further one halves them."""
ROLLOUT_SHARE = 0.3
"""Of the samples of the last two phases: by then a student's own steps lead off the path."""

EvaluationsOpt = Annotated[
    int,
    typer.Option(
        "--evaluations",
        min=0,
        max=MOST_EVALUATIONS,
        help="Steps that the student takes, one pass each; 0 only takes guidance's second pass "
        "away.",
        rich_help_panel="Run",
    ),
]
GuidanceOpt = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale",
        metavar="SCALE",
        min=0.0,
        max=100.0,
        help="Guidance that goes into the weights. Default: 5.0, tiny 2.0.",
        rich_help_panel="Run",
    ),
]
PhaseStepsOpt = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Optimizer steps of each phase. Default: 3000, tiny 2000.",
        rich_help_panel="Run",
    ),
]
FolderOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder for a run per phase and student.safetensors. Default: "
        "runs/DATA-MODEL-distilled; the same folder goes on.",
        rich_help_panel="Output",
    ),
]


class Phase(NamedTuple):
    """A run that takes passes away."""

    name: str
    evaluations: int
    rollout_share: float


def distill(
    data: own.DataOpt = None,
    init: own.InitOpt = None,
    model: own.ModelOpt = None,
    profile: opt.ProfileOpt = None,
    evaluations: EvaluationsOpt = 6,
    guidance_scale: GuidanceOpt = None,
    steps: PhaseStepsOpt = None,
    batch: own.BatchOpt = None,
    accumulation: own.AccumulationOpt = None,
    out: FolderOpt = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    device: opt.DeviceOpt = None,
    num_processes: own.ProcessesOpt = None,
    seed: opt.SeedOpt = None,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Teach weights to need fewer passes: guidance goes in first, then steps are halved

    Trains adapters, with the network below them as the teacher, or with --set train.strategy=full
    all weights, with a second network, in phases that are runs of their own (`ushape monitor
    OUT/24` watches one). Repeating the command goes on. What comes out,
    OUT/student.safetensors, says how it is sampled, and `refine`, `serve` and `evaluate` do so.
    Distil what has been fine-tuned: the other way drifts. Phases after the first: experimental.

    Examples:

      ushape distill --init runs/shoes-ultrashape-1.0-dit --profile a40

      ushape distill --init ultrashape_v1.pt --evaluations 0

      ushape distill --model tiny --dry-run
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.processes import is_distributed_child
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.objectives.distill import check_distillation

    ui = make_ui("distill", json_output, quiet, verbose, progress)
    flags: dict[str, Any] = {
        "profile": profile,
        "device": device,
        "seed": seed,
        "train.objective": "distill",
        "train.data": data or None,
        "train.model": model,
        "train.steps": steps,
        "train.microbatch": batch,
        "train.accumulation": accumulation,
        "launch.num_processes": num_processes,
    }

    def settings(phase: Phase, start: Path | None) -> Resolved:
        mine: dict[str, Any] = {
            "train.init": None if start is None else str(start),
            "distill.evaluations": phase.evaluations,
            "distill.guidance_scale": 0.0 if phase.evaluations else guidance_scale,
            "distill.rollout_share": phase.rollout_share,
        }
        found = resolve_settings({**flags, **mine}, config, overrides, no_config)
        # Each phase is a run, and has a copy of its own.
        places = [f"train.{name}={place.rstrip('/')}/{phase.name}"
                  for name in ("mirror", "resume_from")
                  if (place := getattr(found.config.train, name))]  # fmt: skip
        if not places:
            return found
        texts = (*(overrides or ()), *places)
        return resolve_settings({**flags, **mine}, config, texts, no_config)

    before = _distilled(init)
    if before and guidance_scale:
        raise UsageError(f"`{init}` has a guidance of {before.guidance:g} in it",
                         hint="leave --guidance-scale out")  # fmt: skip
    phases = phases_to(evaluations, before)
    first = settings(phases[0], init)
    if show_config:
        show_settings(ui, first, ("train", "distill", "launch"))
        return
    folder = (out or _default_folder(first)).absolute()
    if is_distributed_child():
        raise UsageError("`ushape distill` starts its processes itself",
                         hint="leave the launcher out, and give --num-processes")  # fmt: skip
    check_distillation(first.config.train)
    runs = [RunFolder(folder / phase.name) for phase in phases]
    _check_places(folder, runs, first.config.train.steps, force)
    if dry_run:
        _plan(ui, [settings(phase, init) for phase in phases], phases, folder)
        return
    for number, (phase, run) in enumerate(zip(phases, runs, strict=True), 1):
        ui.info(f"phase {number} of {len(phases)}: {_describe(phase)}")
        target = folder / f"{'student' if number == len(phases) else phase.name}.safetensors"
        _take(ui, settings(phase, init), run, target, force)
        init = target
    data_set, student = first.config.train.data, str(target)
    ui.hint(shlex.join(["ushape", "evaluate", "--data", data_set, "--checkpoint", student]))
    outputs, counts = {"weights": student}, {"phases": len(phases)}
    ui.result(inputs={"data": data_set}, outputs=outputs, counts=counts)


def _distilled(init: Path | None) -> Distilled | None:
    """Returns what the weights to start from say of themselves; None where none are named.

    Raises:
        CheckpointError: They are codes, which take no adapters.
    """
    from ultrashape_cli.models.quantised_file import require_plain
    from ultrashape_cli.models.sources import resolve_named

    if init is None or str(init) == "random":
        return None
    source = resolve_named(init)
    require_plain(source.files["dit"], "distilled")
    return source.distilled


def _check_places(folder: Path, runs: list[RunFolder], steps: int, force: bool) -> None:
    """Raises UsageError, before anything is trained, where a phase cannot go where it would.

    Args:
        folder: Of all phases.
        runs: Theirs, in order.
        steps: Of each.
        force: All are made anew.
    """
    from ultrashape_cli.commands.train.start import finished_checkpoint
    from ultrashape_cli.config.distilled import Distilled
    from ultrashape_cli.errors import CheckpointError, UsageError
    from ultrashape_cli.models.weights import read_metadata
    from ultrashape_cli.training.setup import check_folder

    hint = f"--out {folder.with_name(f'{folder.name}-2')}, or any new folder"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{folder}` is a file", hint=hint)
    began = [run.base.exists() for run in runs]
    for run in runs:
        try:
            check_folder(run)
        except UsageError as error:
            raise UsageError(error.message, hint=hint) from error
    for name in (*(run.root.name for run in runs[:-1]), "student"):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            continue
        try:
            said = Distilled.parse(read_metadata(file).get("distilled"))
        except CheckpointError:
            said = None
        if said is None or not any(began):
            raise UsageError(f"`{file}` is not of this command", hint=hint)
    for index, run in enumerate(runs[:-1]):
        taught = any(began[index + 1 :])
        if taught and finished_checkpoint(run, steps) is None and not force:
            raise UsageError(
                f"`{run.root}` would go on to {steps:,} steps, and later phases were taught by "
                "what it was before",
                hint=f"--force makes all phases anew; or {hint}",
            )


def phases_to(evaluations: int, before: Distilled | None) -> list[Phase]:
    """Returns the phases that end with a student of so many steps.

    Raises:
        UsageError: Its teacher, distilled `before`, takes no more.
    """
    from ultrashape_cli.errors import UsageError

    most = (before.evaluations if before else 0) or 2 * MOST_EVALUATIONS
    if before and not 0 < evaluations < most:
        raise UsageError(f"the weights of --init take {before.evaluations} steps already"
                         if before.evaluations else "the weights of --init have guidance in them",
                         hint="--evaluations with fewer steps, at least 1")  # fmt: skip
    counts = [evaluations] if evaluations else []
    while counts and counts[-1] * 2 <= MOST_EVALUATIONS and counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    steps = [
        Phase(str(count), count, ROLLOUT_SHARE if index < 2 else 0.0)
        for index, count in enumerate(counts)
    ]
    return [*([] if before else [Phase("guidance", 0, 0.0)]), *reversed(steps)]


def _describe(phase: Phase) -> str:
    if not phase.evaluations:
        return "one pass does what two did for the guidance"
    return f"{phase.evaluations} steps lead where twice as many did"


def _default_folder(resolved: Resolved) -> Path:
    data = Path(resolved.config.train.data).resolve().name
    return Path("runs") / f"{data}-{resolved.config.train.model}-distilled"


def _plan(ui: UI, plans: list[Resolved], phases: list[Phase], folder: Path) -> None:
    from ultrashape_cli.training.memory.plan import check_plan, plan_run

    rows, found, hours, cost = [], [], 0.0, 0.0
    for phase, resolved in zip(phases, plans, strict=True):
        plan = plan_run(resolved.config, resolved.profile)
        check_plan(plan, resolved.config, resolved.profile)
        hours += plan.hours
        cost += plan.hours * resolved.config.launch.price_per_hour
        gib = plan.device_bytes / 2**30
        rows.append((phase.name, f"{plan.steps:,}", f"{plan.seconds_per_step:.2f}",
                     f"{plan.hours:,.1f}", f"{gib:.1f}"))  # fmt: skip
        found.append({"phase": phase.name, "steps": plan.steps, "hours": plan.hours,
                      "seconds_per_step": plan.seconds_per_step, "gib": gib})  # fmt: skip
    ui.table(("phase", "steps", "s per step", "hours", "GiB"), rows)
    price = f", {cost:,.2f} to pay" if cost else ""
    ui.info(f"estimate: {hours:,.1f} h{price} on {plans[0].profile.name}, into {folder}")
    ui.result(inputs={"data": plans[0].config.train.data}, plan={"hours": hours, "cost": cost},
              phases=found)  # fmt: skip


def _take(ui: UI, resolved: Resolved, run: RunFolder, target: Path, force: bool) -> None:
    """Trains a phase to its end, and writes its averaged weights."""
    import gc
    import sys

    from ultrashape_cli.devices import choose_device, empty_cache
    from ultrashape_cli.models.convert import choose_model, convert_weights, gather_weights

    plan = preflight(ui, resolved, run, dry_run=False, force=force)
    again = shlex.join(["ushape", *(word for word in sys.argv[1:] if word != "--force")])
    steps = train_to_end(ui, resolved, run, plan, force=force, again=again)
    # The next phase plans with the whole card.
    gc.collect()
    empty_cache(choose_device(resolved.config.device))
    if steps or not target.exists():
        gathered = gather_weights(run.root, averaged=resolved.config.train.ema_decay > 0)
        convert_weights(gathered, choose_model(gathered), target)
        attribute(run.root, target)
