"""`ushape serve`: refinement as a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.serve import options as own
from ultrashape_cli.commands.serve.token import token
from ultrashape_cli.options import add_group

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved

serve = typer.Typer(name="serve", pretty_exceptions_enable=False)
serve.add_typer(token)


def _serve(
    context: typer.Context,
    checkpoint: own.CheckpointOpt = None,
    model: own.ModelOpt = None,
    data: own.DataOpt = None,
    host: own.HostOpt = None,
    port: own.PortOpt = None,
    join: own.JoinOpt = None,
    token: own.TokenOpt = None,
    accept_license: own.AcceptOpt = False,
    workers: own.WorkersOpt = None,
    engine: own.EngineOpt = None,
    address: own.AddressOpt = None,
    max_memory_gib: own.MemoryOpt = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Refine as a service: a page, an API and a queue

    Takes meshes and images over HTTP, refines them one after another on every card, and keeps
    queue and results in a folder: started again, it goes on. Ctrl-C lets running jobs end, or puts
    them back. Limits and retention are settings: `--set serve.KEY=VALUE`, `--show-config` lists
    them. Other machines help with `--join`.

    Examples:

      ushape serve --model tiny

      ushape serve --checkpoint mine=runs/mine --checkpoint base=weights/ultrashape_v1.pt

      ushape serve token add anna --data serve

      ushape serve --join http://studio:8000 --checkpoint mine=runs/mine
    """
    if context.invoked_subcommand is not None:
        return
    from ultrashape_cli.commands.serve.start import Request, start
    from ultrashape_cli.commands.settings import make_ui, resolve_settings, show_settings

    ui = make_ui("serve", json_output, quiet, verbose, progress=False)
    flags = {
        "serve.data": None if data is None else str(data),
        "serve.host": host,
        "serve.port": port,
        "serve.workers": workers,
        "engine.kind": engine,
        "engine.address": address,
        "refine.max_memory_gib": max_memory_gib,
        "profile": profile,
        "device": device,
    }

    def settings(of_model: str | None) -> Resolved:
        return resolve_settings(flags, config, overrides, no_config, model=of_model)

    resolved = settings(model)
    if show_config:
        show_settings(ui, resolved, ("serve", "engine", "refine"))
        return
    request = Request(
        *(tuple(checkpoint or ()), model, join, token or "", accept_license, dry_run),
        *(config, tuple(overrides or ()), flags, no_config),
    )
    start(ui, request, resolved)


add_group(serve, _serve)
