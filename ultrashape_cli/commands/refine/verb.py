"""`ushape refine`: coarse mesh and reference image to refined mesh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrashape_cli import options as opt
from ultrashape_cli.commands.refine import options as own
from ultrashape_cli.commands.refine import wishes as wish
from ultrashape_cli.commands.refine.batch import refine_batch
from ultrashape_cli.commands.refine.coarse import command_of, settings_of, with_coarse_mesh
from ultrashape_cli.commands.refine.compare import refine_compare
from ultrashape_cli.commands.refine.one import refine_one
from ultrashape_cli.commands.refine.request import Request, check_usage
from ultrashape_cli.commands.refine.sweep import refine_sweep
from ultrashape_cli.commands.settings import resolve_settings, show_settings

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.ui import UI


def refine(
    mesh: own.MeshArg = None,
    image: own.ImageArg = None,
    out: own.OutOpt = None,
    checkpoint: own.CheckpointOpt = None,
    model: own.ModelOpt = None,
    batch: own.BatchOpt = None,
    background: own.BackgroundOpt = None,
    colours: own.ColoursOpt = None,
    repair: own.RepairOpt = None,
    ground_truth: own.TruthOpt = None,
    quality: own.QualityOpt = None,
    steps: own.StepsOpt = None,
    guidance_scale: own.GuidanceOpt = None,
    strength: wish.StrengthOpt = None,
    view: wish.ViewOpt = None,
    view_mode: wish.ViewModeOpt = None,
    image_option: wish.ImageOpt = None,
    coarse_with: wish.CoarseWithOpt = None,
    text: wish.TextOpt = None,
    region: wish.RegionOpt = None,
    best_of: wish.BestOfOpt = None,
    keep_candidates: wish.CandidatesOpt = False,
    sweep: wish.SweepOpt = None,
    seeds: wish.SeedsOpt = None,
    tokens: own.TokensOpt = None,
    grid_resolution: own.ResolutionOpt = None,
    compare_speed: own.CompareOpt = False,
    faces: own.FacesOpt = None,
    topology: own.TopologyOpt = None,
    uv: own.UvOpt = None,
    bake: own.BakeOpt = None,
    keep_full: own.KeepFullOpt = False,
    accept_only_better: own.AcceptOpt = None,
    keep_floaters: own.FloatersOpt = None,
    frame: own.FrameOpt = None,
    preview: own.PreviewOpt = None,
    metrics: own.MetricsOpt = False,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    backend: own.BackendOpt = None,
    server: own.ServerOpt = None,
    token: own.TokenOpt = None,
    max_memory_gib: own.MemoryOpt = None,
    num_processes: own.ProcessesOpt = None,
    seed: opt.SeedOpt = None,
    limit: opt.LimitOpt = None,
    fail_fast: opt.FailFastOpt = False,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Refine a coarse mesh so that it shows what the image shows

    Reads MESH, IMAGE and a checkpoint. Writes the refined mesh in the size and place of the
    input, and OUT.json with what made it. The same seed gives the same mesh.

    Examples:

      ushape refine coarse.glb reference.png -o refined.glb --preview refined.png

      ushape refine coarse.stl view.png --faces 500000 --keep-full

      ushape refine refined.glb back.png --region side=-z --view back=back.png

      ushape refine --batch jobs.csv -o refined

      ushape refine picture.png --coarse-with hull -o result.glb

      ushape refine coarse.glb view.png -o refined.glb --server http://studio:8000
    """  # fmt: skip
    from ultrashape_cli.processes import is_distributed_child
    from ultrashape_cli.ui import UI

    quiet = quiet or is_distributed_child()
    ui = UI("refine", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    flags = {
        "refine.background": background,
        "refine.colours": colours,
        "refine.repair": repair,
        "refine.quality": quality,
        "refine.steps": steps,
        "refine.guidance_scale": guidance_scale,
        "refine.strength": strength,
        "refine.view_mode": view_mode,
        "refine.region": region,
        "refine.best_of": best_of,
        "refine.tokens": tokens,
        "refine.grid_resolution": grid_resolution,
        "refine.faces": faces,
        "refine.topology": topology,
        "refine.uv": uv,
        "refine.bake": bake,
        "refine.keep_floaters": keep_floaters,
        "refine.accept_only_better": accept_only_better,
        "refine.frame": frame,
        "refine.max_memory_gib": max_memory_gib,
        "refine.backend": backend,
        "profile": profile,
        "device": device,
        "launch.num_processes": num_processes,
        "seed": seed,
    }

    def settings(of_model: str | None, vary: dict[str, Any] | None = None) -> Resolved:
        own_flags = {**flags, **(vary or {})}
        return resolve_settings(own_flags, config, overrides, no_config, model=of_model)

    metrics = metrics or ground_truth is not None
    request = Request(
        *(mesh, image, out, batch, checkpoint, model, ground_truth, preview, metrics, keep_full),
        *(compare_speed, num_processes or 1, limit, fail_fast, force, dry_run, server, token or ""),
        *(tuple(view or ()), keep_candidates, tuple(sweep or ()), seeds, coarse_with, text),
        *(image_option, None if no_config else config),
    )
    if server is not None and not show_config:
        _run_on_server(ui, request, flags, config, overrides, no_config)
    else:
        _run(ui, request, settings, show_config)


def _run_on_server(
    ui: UI,
    request: Request,
    flags: dict[str, Any],
    config: Path | None,
    overrides: list[str] | None,
    no_config: bool,
) -> None:
    from ultrashape_cli.commands.refine.server import check_server_usage, refine_on_server
    from ultrashape_cli.interrupts import exit_on_terminate

    check_server_usage(request, flags)
    request = check_usage(request)
    # A named profile, so that no card is looked for: none here has a say.
    resolved = resolve_settings({**flags, "profile": "cpu"}, config, overrides, no_config)
    with exit_on_terminate():
        refine_on_server(ui, request, resolved)


def _run(ui: UI, request: Request, settings: Callable[..., Resolved], show_config: bool) -> None:
    from ultrashape_cli.config.coarse import coarse_rows
    from ultrashape_cli.config.distilled import for_distilled
    from ultrashape_cli.config.trained_views import for_views
    from ultrashape_cli.models.sources import find_weights

    # Bad settings are refused before the weights are looked for.
    resolved = settings(None)
    if show_config and request.checkpoint is None:
        show_settings(ui, settings(request.model), ("refine",), coarse_rows(request.config))
        return
    if not show_config:
        request = check_usage(request)
    source = find_weights(request.checkpoint, request.model)
    found: dict[str, Any] = {}

    def vary(values: dict[str, Any]) -> Resolved:
        own = settings(source.model, {**found, **values})
        return for_views(for_distilled(own, source.distilled), source.views)

    resolved = vary({})
    steps, own = resolved.config.refine.steps - 1, source.distilled
    if own and own.evaluations not in (0, steps):
        ui.warn(f"the weights were distilled to {own.evaluations} steps, and take {steps} as set")
    if show_config:
        show_settings(ui, resolved, ("refine",), coarse_rows(request.config))
        return
    if request.coarse_with is not None:
        found.update(settings_of(command_of(request), resolved))
        resolved = vary({})
    if request.batch is not None:
        refine_batch(ui, request, source, resolved)
        return
    from ultrashape_cli.interrupts import exit_on_terminate

    with exit_on_terminate():
        if request.coarse_with is not None:
            request = with_coarse_mesh(ui, request, resolved)
            if request.mesh is None:  # a dry run, which has said what it would do
                return
        if request.compare_speed:
            refine_compare(ui, request, source, resolved)
        elif request.varies:
            refine_sweep(ui, request, source, resolved, vary)
        else:
            refine_one(ui, request, source, resolved)
