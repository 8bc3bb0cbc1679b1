"""One job of a worker: as `ushape refine` does it, and with the same bits."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultrashape_cli.config.choices import MemoryMode
from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.inference.candidates import Chosen, best_of, evaluate_all
from ultrashape_cli.inference.job import (
    Inputs,
    Job,
    prepare_inputs,
    read_inputs,
    recipe_of,
    write_outputs,
)
from ultrashape_cli.inference.memory import OutOfMemory
from ultrashape_cli.inference.stages import Whole
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.service.models import LoadedModels
from ultrashape_cli.service.telling import Teller

logger = logging.getLogger(__name__)


def refine_job(task: dict[str, Any], models: LoadedModels, teller: Teller) -> dict[str, Any]:
    """Refines a mesh; returns how it ended: state, result and files.

    Args:
        task: What the agent sent: options, names of files, and where results go.
        models: What is loaded.
        teller: Gets the progress.

    Raises:
        Cancelled: The job was cancelled.
        UShapeError: It failed.
    """
    name, options, made = task["model"], task["options"], Path(task["made"])
    teller.progress("read", 0)
    resolved = models.plan.resolve(name, options)
    job = Job(
        name=task["job"],
        mesh=Path(task["mesh"]),
        image=Path(task["image"]),
        target=made / f"refined.{options['format']}",
        seed=resolved.config.seed,
        preview=made / "picture.png" if options["picture"] else None,
        metrics=options["metrics"],
        keep_full=options["keep_full"],
    )
    inputs = read_inputs(job, resolved.config.refine)
    for warning in inputs.warnings:
        teller.note(_named(warning, task))
    recipe = recipe_of(job, models.source(name), resolved.config)
    tries: list[str] = []
    try:
        best = _networks(name, job, inputs, resolved, models, teller, tries)
    except OutOfMemory as error:
        mode: MemoryMode | None = None
        if tries and resolved.config.refine.memory == "auto":
            mode = models.cheaper(name, tries[-1])  # type: ignore[arg-type]
        if mode is None:
            raise
        logger.warning("%s: %s; once more with memory `%s`", job.name, error.message, mode)
        teller.note(f"out of memory in mode `{tries[-1]}`: once more in mode `{mode}`")
    else:
        return _write(task, job, inputs, best, recipe, models, tries, teller)
    # Outside of the handler: its traceback holds the tensors that had no room.
    models.drop_all()
    cheaper = replace(resolved, config=replace(
        resolved.config, refine=replace(resolved.config.refine, memory=mode)))  # fmt: skip
    best = _networks(name, job, inputs, cheaper, models, teller, tries)
    return _write(task, job, inputs, best, recipe, models, tries, teller)


def _networks(
    name: str,
    job: Job,
    inputs: Inputs,
    resolved: Resolved,
    models: LoadedModels,
    teller: Teller,
    tries: list[str],
) -> Chosen:
    config, spec = resolved.config.refine, model_spec(models.source(name).model)
    prepared = prepare_inputs(job, inputs, spec, config)
    plan = models.plan_for(name, config, prepared.voxels.shape[1])
    teller.progress("load", 0)
    choice = models.get(name, config, plan)
    tries.append(choice.mode)
    whole = Whole(choice.refiner.config, choice.refiner.levels)

    def on_progress(stage: str, done: int, total: int) -> None:
        teller.progress(stage, whole.percent(stage, done, total))

    fields = evaluate_all(choice.refiner, prepared, on_progress)
    on_progress("mesh", 0, 1)
    return best_of(choice.refiner, fields)


def _write(
    task: dict[str, Any],
    job: Job,
    inputs: Inputs,
    best: Chosen,
    recipe: dict[str, Any],
    models: LoadedModels,
    tries: list[str],
    teller: Teller,
) -> dict[str, Any]:
    teller.progress("write", 99)
    measured = write_outputs(job, inputs, best, recipe, models.device)
    if best.refined.repaired:
        teller.note("the decoded surface was open and was closed by the watertight step")
    record = read_json(job.record)
    # The paths of this machine are not the client's; hashes say what the files were.
    for part in ("mesh", "image"):
        record["inputs"][part] = task["inputs"][part]["name"]
    for weights in record["inputs"]["weights"].values():
        weights["path"] = Path(weights["path"]).name
    record["service"] = {
        "job": task["job"], "attempt": task["attempt"], "checkpoint": task["model"],
        "memory_modes": tries, "device": str(models.device),
    }  # fmt: skip
    measured["memory_modes"] = tries
    measured.pop("preview", None)
    record["result"] = measured
    write_json(job.record, record)
    files = {"mesh": job.target, "record": job.record}
    if job.keep_full and job.full_target.exists():
        files["full"] = job.full_target
    if job.preview is not None:
        files["picture"] = job.preview
    return {
        "state": "done",
        "result": measured,
        "files": {what: path.name for what, path in files.items()},
    }


def _named(text: str, task: dict[str, Any]) -> str:
    for part in ("mesh", "image"):
        text = text.replace(task[part], task["inputs"][part]["name"])
    return text
