"""`ushape refine --server URL`: one mesh, refined by a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.made import already_made, outputs_of
from ultrashape_cli.commands.refine.request import make_job, target_of
from ultrashape_cli.commands.refine.scores import verdict_of

if TYPE_CHECKING:
    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.service.client import Client, OnWait
    from ultrashape_cli.ui import UI


def check_server_usage(request: Request, flags: dict[str, Any]) -> None:
    """Raises UsageError for what has no meaning where a service refines."""
    from ultrashape_cli.errors import UsageError

    here = "leave it out: the service decides with what it refines"
    for name, given, hint in (
        ("--checkpoint", request.checkpoint, "--model names a checkpoint of the service"),
        ("--device", flags["device"], here),
        ("--profile", flags["profile"], here),
        ("--backend", flags["refine.backend"], here),
        ("--max-memory-gib", flags["refine.max_memory_gib"], here),
        ("--num-processes", flags["launch.num_processes"], here),
        ("--compare-speed", request.compare_speed, "leave out --server"),
        ("--ground-truth", request.ground_truth, "`ushape evaluate --pairs` measures afterwards"),
        ("--batch", request.batch, "one mesh at a time, or leave out --server"),
        ("--limit", request.limit, "it is for --batch"),
        ("--fail-fast", request.fail_fast, "it is for --batch"),
        ("--view", request.views, "one image goes with a job; leave out --server"),
        ("--sweep", request.sweep, "leave out --server"),
        ("--seeds", request.seeds, "leave out --server"),
        ("--keep-candidates", request.keep_candidates, "the scores of all are in the record"),
    ):
        if given:
            raise UsageError(f"`{name}` has no meaning with --server", hint=hint)


def refine_on_server(ui: UI, request: Request, resolved: Resolved) -> None:
    """Refines one mesh on a service, unless its result is here, and shows the figures."""
    from ultrashape_cli.files import check_outputs, file_hash
    from ultrashape_cli.inference.files import check_writable
    from ultrashape_cli.service.client import Client
    from ultrashape_cli.service.remote import Service

    assert request.server is not None
    job = make_job(request, resolved)
    other = job.mesh.with_name(f"{job.mesh.stem}_refined{job.target.suffix}")
    check_outputs(job.outputs, job.inputs, hint=f"-o {other}")
    options = options_of(ui, request, resolved)
    client = Client(Service(request.server, request.token), _telling(ui))
    status = client.status()
    model = _model(status, options)
    _check_sizes(status["limits"], job)
    inputs = {
        "mesh": str(job.mesh), "mesh_sha256": file_hash(job.mesh),
        "image": str(job.image), "image_sha256": file_hash(job.image),
    }  # fmt: skip
    # A picture is asked for with the job, and is no other mesh.
    asked = {name: value for name, value in options.items() if name != "picture"}
    recipe = {"server": {"url": client.service.url, "version": status["version"], "model": model,
                         "options": asked, "inputs": inputs}}  # fmt: skip
    if already_made(ui, job, recipe, inputs, request.force):
        return
    if request.dry_run:
        ui.info(f"would refine {job.mesh} into {job.target} on {client.service.url} with "
                f"`{options['model']}`")  # fmt: skip
        ui.result(inputs=inputs, outputs={})
        return
    for folder in {path.parent for path in (job.target, job.preview) if path is not None}:
        check_writable(folder)
    described = _work(ui, client, job, options)
    measured = _save(client, job, described, recipe, inputs)
    _show(ui, job, inputs, measured)


def options_of(ui: UI, request: Request, resolved: Resolved) -> dict[str, Any]:
    """Returns the options of a job for the service: what was given here, and nothing of defaults.

    Raises:
        UsageError: A setting that was typed is the service's to decide.
    """
    from ultrashape_cli.config.resolve import TYPED
    from ultrashape_cli.config.schema import flatten
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.service.options import OF_THE_MACHINE

    options: dict[str, Any] = {
        "seed": resolved.config.seed,
        "format": target_of(request).suffix[1:].lower(),
        "metrics": request.metrics,
        "keep_full": request.keep_full,
        "picture": request.preview is not None,
    }
    if request.model is not None:
        options["model"] = request.model
    for key, value in flatten(resolved.config.refine, "refine.").items():
        origin, name = resolved.origins[key], key.removeprefix("refine.")
        if origin not in TYPED and not origin.startswith(("`", "$")):
            continue
        if name not in OF_THE_MACHINE:
            options[name] = value
        elif origin in TYPED:
            raise UsageError(f"`{key}` has no meaning with --server",
                             hint="leave it out: the service decides it")  # fmt: skip
        else:
            ui.warn(f"`{key}` of {origin} has no effect: the service decides it")
    return options


def _model(status: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Returns what the service says of the model, whose name goes into the options."""
    from ultrashape_cli.errors import UsageError

    known = status["models"]
    name = options.setdefault("model", status["default_model"])
    if name not in known:
        raise UsageError(f"the service has no model `{name}`",
                         hint=f"--model {' or '.join(known)}")  # fmt: skip
    return {"name": name, **known[name]}


def _check_sizes(limits: dict[str, Any], job: Job) -> None:
    """Raises UShapeError before a file is sent for nothing."""
    from ultrashape_cli.errors import UShapeError

    for what, path in (("mesh", job.mesh), ("image", job.image)):
        size, limit = path.stat().st_size, limits[f"{what}_mb"] * 1e6
        if size > limit:
            raise UShapeError(
                f"`{path}` has {size / 1e6:.0f} MB, the service takes {limit / 1e6:g} MB",
                hint=f"reduce the {what}",
            )
    suffix = job.mesh.suffix[1:].lower()
    if suffix not in limits["mesh_types"]:
        known = ", ".join(limits["mesh_types"])
        raise UShapeError(f"the service takes no {suffix.upper()}: `{job.mesh}`",
                          hint=f"one file that holds all, of {known}")  # fmt: skip


def _telling(ui: UI) -> OnWait:
    def tell(reason: str, seconds: float) -> None:
        # Once for each reason: a long wait is no page of warnings.
        ui.warn(f"waiting for the service ({reason}); asking again and again")

    return tell


def _work(ui: UI, client: Client, job: Job, options: dict[str, Any]) -> dict[str, Any]:
    """Queues a job and waits for its end; returns it as the service describes it."""
    from ultrashape_cli.errors import UShapeError

    ui.info(f"sending {job.mesh} to {client.service.url}")
    described = client.submit(job.mesh, job.image, options)
    name = described["job_id"]
    ui.info(f"job {name}: {client.service.url}/#job={name}")
    try:
        described = _wait(ui, client, described)
    except (KeyboardInterrupt, SystemExit):
        _cancel(ui, client, name)
        raise
    if described["state"] != "done":
        error = described["error"] or {"message": f"the job was {described['state']}"}
        hint = error.get("hint") or "repeat the command"
        raise UShapeError(f"{client.service.url}: {error['message']}", hint=hint)
    return described


def _wait(ui: UI, client: Client, described: dict[str, Any]) -> dict[str, Any]:
    name, percent = described["job_id"], 0
    with ui.progress("refine", 100) as bar:
        bar.update(0, _place(described))
        for event in client.follow(name):
            if event.kind == "warning":
                ui.warn(event.data["message"])
            elif event.kind == "progress":
                percent = event.data["percent"]
                bar.update(percent, event.data["stage"])
            elif event.kind == "queued" and event.data.get("again"):
                ui.warn(f"a worker was lost ({event.data['again']}); the job waits for another")
            elif not event.kind and not percent:
                bar.update(0, _place(client.show(name)))
        return client.show(name)


def _place(described: dict[str, Any]) -> str:
    place = described["place"]
    return f"place {place} in the queue" if place else described["stage"]


def _cancel(ui: UI, client: Client, name: str) -> None:
    try:
        client.cancel(name)
    except OSError as error:
        ui.warn(f"job {name} could not be cancelled ({error}): it goes on")
    else:
        ui.warn(f"cancelled job {name}")


def _save(
    client: Client,
    job: Job,
    described: dict[str, Any],
    recipe: dict[str, Any],
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """Writes the files of a job, the record last; returns what was measured."""
    from ultrashape_cli.files import read_json, temporary_path, write_json

    name, files = described["job_id"], described["files"]
    client.save(name, "mesh", job.target)
    if job.keep_full and "full" in files:
        client.save(name, "full", job.full_target)
    if job.preview is not None:
        client.save(name, "picture", job.preview)
    with temporary_path(job.record) as temporary:
        client.save(name, "record", temporary)
        record = read_json(temporary)
        # As where it is refined here: whole paths, and where the picture is.
        record["inputs"] |= inputs
        if job.preview is not None:
            record["result"]["preview"] = str(job.preview)
        write_json(temporary, {**record, **recipe})
    return record["result"]


def _show(ui: UI, job: Job, inputs: dict[str, Any], measured: dict[str, Any]) -> None:
    from ultrashape_cli.commands.refine.one import show_result

    if measured["closed_by_remesh"]:
        ui.warn("the decoded surface was open and was closed by the watertight step")
    show_result(ui, measured)
    ui.result(
        inputs=inputs,
        outputs=outputs_of(job),
        result=measured,
        **verdict_of(measured.get("metrics", {})),
    )
