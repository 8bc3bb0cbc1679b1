"""What `ushape serve` does once its settings are known."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.service.plan import Checkpoint, Plan
    from ultrashape_cli.ui import UI

STOPPING = "Stopping: running jobs end or go back to the queue; press Ctrl-C again to quit at once"
_PACKAGES = ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "python_multipart")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for, beside the settings."""

    checkpoints: tuple[str, ...]
    model: str | None
    join: str | None
    token: str
    accept_license: bool
    dry_run: bool
    file: Path | None
    overrides: tuple[str, ...]
    flags: dict[str, Any]
    no_config: bool


def start(ui: UI, request: Request, resolved: Resolved) -> None:
    """Serves, or works for another service, until a signal comes.

    Raises:
        UShapeError: It cannot begin; nothing has been changed.
    """
    from ultrashape_cli.errors import UsageError

    _require_packages()
    serve = resolved.config.serve
    if request.token and request.join is None:
        raise UsageError("--token goes with --join", hint="ushape serve token add NAME makes one")
    if request.join is None:
        _check_open(serve.host, Path(serve.data))
    plan = _plan(ui, request, resolved)
    for name, each in plan.checkpoints.items():
        _check_licence(ui, name, each, request)
    if request.join is not None:
        _join(ui, request, plan)
    else:
        _serve(ui, request, plan)


def _require_packages() -> None:
    import importlib.util

    from ultrashape_cli.errors import DependencyError

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"`ushape serve` needs {', '.join(missing)}",
            hint="pipx install 'ultrashape-cli[serve]', or pip install 'ultrashape-cli[serve]'",
        )


def _check_open(host: str, data: Path) -> None:
    """Raises UsageError where others could reach a service that asks for no token."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.service.auth import TOKENS_FILE, Tokens, is_own

    if not Tokens(data / TOKENS_FILE).all() and not is_own(host):
        raise UsageError(
            f"`{host}` is open to others, and `{data}` has no token",
            hint=f"ushape serve token add NAME --data {data}; or --host 127.0.0.1",
        )


def _plan(ui: UI, request: Request, resolved: Resolved) -> Plan:
    from ultrashape_cli.service.catalogue import look_up
    from ultrashape_cli.service.options import Settings
    from ultrashape_cli.service.plan import Plan

    config = resolved.config
    ui.info("looking for weights")
    checkpoints, devices = look_up(named(request.checkpoints), request.model, config.device)
    keep = ("profile", "device", "refine.max_memory_gib")
    flags = {name: request.flags[name] for name in keep if request.flags[name] is not None}
    # The card is looked for once, here, and by no other process.
    flags["profile"] = resolved.profile.name
    file = None if request.file is None else str(request.file.resolve())
    settings = Settings(file, request.overrides, flags, request.no_config)
    return Plan(config, checkpoints, settings, devices)


def named(checkpoints: tuple[str, ...]) -> dict[str, str]:
    """Returns paths by name; one without a name is called as its file or folder.

    Raises:
        UsageError: Two have one name.
    """
    from ultrashape_cli.errors import UsageError

    found: dict[str, str] = {}
    for text in checkpoints:
        name, equals, path = text.partition("=")
        if not equals or os.path.exists(text):
            name, path = Path(text).stem or text, text
        if not name or name in found or len(name) > 80 or not name.isprintable():
            raise UsageError(
                f"`--checkpoint {text}`: `{name}` is taken, or is no name",
                hint=f"--checkpoint another_name={path}",
            )
        found[name] = path
    return found


def _check_licence(ui: UI, name: str, checkpoint: Checkpoint, request: Request) -> None:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import LICENCES, accept, is_accepted

    licence = LICENCES.get(checkpoint.licence)
    if licence is None or is_accepted(licence):
        return
    if not request.accept_license:
        ui.info(f"{licence.name}: {licence.url}\n{licence.limits}")
        raise UsageError(
            f"the {licence.name}, under which `{name}` is, is not accepted yet",
            hint="read it, then add --accept-license (once)",
        )
    if not request.dry_run:
        accept(licence)


def _show_plan(ui: UI, plan: Plan, where: str) -> dict[str, Any]:
    rows = [(name, c.family, c.licence, c.files.get("dit", "")) for name, c in
            plan.checkpoints.items()]  # fmt: skip
    ui.table(("checkpoint", "model", "licence", "weights"), rows)
    workers = plan.serve.workers or max(1, len(plan.devices))
    cards = ", ".join(plan.devices) or "the CPU"
    ui.info(f"{where}, {workers} worker{'s' * (workers > 1)} on {cards}")
    return {
        "models": {name: each.family for name, each in plan.checkpoints.items()},
        "workers": workers,
        "devices": plan.devices,
    }


def _serve(ui: UI, request: Request, plan: Plan) -> None:
    from ultrashape_cli.interrupts import SignalFlag
    from ultrashape_cli.service.supervisor import Supervisor, bind

    serve = plan.serve
    folder = Path(serve.data)
    if request.dry_run:
        bind(serve.host, serve.port).close()
        about = _show_plan(ui, plan, f"would listen on {_url(serve.host, serve.port)}")
        ui.result(outputs={}, **about)
        return
    supervisor = Supervisor(plan, folder)
    everywhere = serve.host in ("0.0.0.0", "::")
    url = _url("127.0.0.1" if everywhere else serve.host, supervisor.port)
    where = f"{url} and all addresses of this machine" if everywhere else url
    about = _show_plan(ui, plan, f"listening on {where}, data in {folder}")
    ui.hint(f"{url} in a browser, {url}/docs for the API; log: {supervisor.log}")
    _log_to(supervisor.log)
    plan = replace(plan, config=replace(plan.config, serve=replace(serve, port=supervisor.port)))
    supervisor.plan = plan
    with SignalFlag(lambda: ui.warn(STOPPING)) as flag:
        ui.result(outputs={"url": url}, data=str(folder), **about)
        supervisor.run(flag)
    raise typer.Exit(flag.exit_code)


def _join(ui: UI, request: Request, plan: Plan) -> None:
    from ultrashape_cli.interrupts import SignalFlag
    from ultrashape_cli.service import join
    from ultrashape_cli.service.remote import Service
    from ultrashape_cli.service.supervisor import LOG_FILE

    assert request.join is not None
    service = Service(request.join, request.token)
    models = join.check_models(plan, service)
    about = _show_plan(ui, plan, f"works for {service.url} with {', '.join(models)}")
    if request.dry_run:
        ui.result(outputs={}, **about)
        return
    folder = Path(plan.serve.data)
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(folder / LOG_FILE)
    with SignalFlag(lambda: ui.warn(STOPPING)) as flag:
        ui.result(outputs={"service": service.url}, **about)
        join.run(plan, service, models, folder.resolve(), flag)
    raise typer.Exit(flag.exit_code)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _log_to(path: Path) -> None:
    """Lets what this process has to say go into the log, where that of all others is, too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s serve %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
