"""What `ushape train` checks and says before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrashape_cli.config.distilled import Distilled
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.memory.plan import RunPlan
    from ultrashape_cli.ui import UI

MANY_EPOCHS = 300
"""Times over the data after which a fine-tune rarely gains and often loses."""


def preflight(
    ui: UI, resolved: Resolved, run: RunFolder, *, dry_run: bool, force: bool = False
) -> dict[str, Any]:
    """Fails in seconds, before weights are loaded; says what will be trained and what it needs.

    Returns:
        The plan as plain values.
    """
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.runs import complete_checkpoints
    from ultrashape_cli.training.generations import REWARDED, check_objective
    from ultrashape_cli.training.memory.plan import check_plan, plan_run
    from ultrashape_cli.training.objectives.distill import check_distillation
    from ultrashape_cli.training.objectives.tokens import check_token_cache
    from ultrashape_cli.training.objectives.views import check_views
    from ultrashape_cli.training.setup import check_folder
    from ultrashape_cli.training.validation import check_best_metric

    config = resolved.config
    settings = config.train
    if not dry_run:
        choose_device(config.device)
    check_folder(run)
    assets = training_assets(config)
    if force:
        _check_sources(config, run)
    coming = _look_at_copies(config, run, assets, force)
    goes_on = run.base.exists() and not force
    start = f"the run in {run.root}" if goes_on else _describe_start(ui, config, dry_run)
    check_best_metric(settings)
    check_token_cache(settings)
    check_distillation(settings)
    check_views(settings)
    check_objective(config)
    if settings.objective in REWARDED:
        _say_when_rewards_are_watched(ui, config)
    plan = plan_run(config, resolved.profile)
    ui.info(
        f"profile {resolved.profile.name}: {settings.dtype}, {settings.strategy} "
        f"({_reason(resolved, plan)}), microbatch {settings.microbatch} x "
        f"{settings.accumulation}, {len(assets)} assets, seed {config.seed}"
    )
    found = [] if force else complete_checkpoints(run.checkpoints)
    resumed = coming or (found[-1] if found else None)
    ui.info(f"resumes from {resumed}" if resumed else f"starts from {start}")
    values = describe_plan(plan, config, len(assets))
    _show_plan(ui, plan, values)
    check_plan(plan, config, resolved.profile)
    return {"profile": resolved.profile.name, "starts_from": start, **values}


def _say_when_rewards_are_watched(ui: UI, config: Config) -> None:
    from ultrashape_cli.training.provenance import open_training_data

    settings = config.train
    if not (settings.validate_meshes and settings.validate_every_steps):
        ui.warn("held-out rewards are not watched: validation refines no meshes")
        return
    if not open_training_data(config).read_split("val"):
        ui.warn(f"held-out rewards are not watched: no held-out assets in `{settings.data}`")
        return
    every = settings.validate_every_steps * settings.mesh_every_validations
    if every >= settings.steps:
        sooner = settings.steps // 10 or 1
        ui.warn(
            f"held-out rewards are watched every {every:,} steps, which is once, at the end of "
            f"these {settings.steps:,}: --set train.validate_every_steps={sooner} --set "
            "train.mesh_every_validations=1 to be stopped before"
        )
    else:
        ui.info(f"held-out rewards are watched every {every:,} steps")


def _look_at_copies(config: Config, run: RunFolder, assets: list[str], force: bool) -> str | None:
    """Returns the checkpoint elsewhere from which a run will go on; None where none is newer.

    Raises:
        StorageError: The place cannot be reached.
        UsageError: It holds another run, or no checkpoint where `--resume-from` names it.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.training.mirror import Mirror

    settings = config.train
    if settings.mirror:
        mirror = Mirror(settings.mirror)
        if mirror.place.is_local:
            check_outputs([Path(mirror.place.root)], [run.root, Path(settings.data)],
                          hint="--set train.mirror=PLACE, on another disk")  # fmt: skip
        mirror.require_mine(run, force=force)
    address = settings.resume_from or settings.mirror
    if not address or force:
        return None
    place = Mirror(address)
    place.require_same(config, assets)
    newer = place.newer(run)
    if settings.resume_from and not newer and not place.checkpoints():
        raise UsageError(f"no whole checkpoint of a run at `{address}`",
                         hint="it holds what `train.mirror` made")  # fmt: skip
    return f"{address.rstrip('/')}/checkpoints/{newer[0].name}" if newer else None


def training_assets(config: Config) -> list[str]:
    """Returns the ids that a run trains on.

    Raises:
        AssetError: They have no cameras, and train with several views.
        DatasetError: There are none, or they have no samples, or not the views.
    """
    from ultrashape_cli.data.posed_views import require_views
    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.training.generations import find_picks, require_training_assets
    from ultrashape_cli.training.provenance import open_training_data

    dataset = open_training_data(config)
    dataset.require()
    if (picks := find_picks(config)) is not None:
        require_training_assets(picks, dataset.read_split("train"))
        return picks.assets
    ids = dataset.read_split("train")[: config.train.overfit or None]
    missing = dataset.lacking(ids, dataset.samples)
    if missing:
        raise DatasetError(
            f"no samples for {len(missing)} of {len(ids)} assets in `{dataset.root}`",
            hint=f"ushape sample {dataset.root} && ushape split {dataset.root}",
        )
    if not ids:
        raise DatasetError(
            f"`{dataset.root}` has no training assets", hint=f"ushape split {dataset.root}"
        )
    if config.train.views > 1:
        require_views(dataset, ids)
    return ids


def compare_profiles(ui: UI, plans: Sequence[tuple[Resolved, float]]) -> None:
    """Shows memory, hours and money of a run on several cards; each comes with its price."""
    from ultrashape_cli.errors import ConfigError
    from ultrashape_cli.training.memory.plan import check_plan, plan_run

    assets = len(training_assets(plans[0][0].config))
    rows, found = [], {}
    for resolved, price in plans:
        config, profile = resolved.config, resolved.profile
        plan = plan_run(config, profile)
        values = describe_plan(plan, config, assets)
        try:
            check_plan(plan, config, profile)
            fits = "yes"
        except ConfigError as error:
            fits = f"no: {error.message}"
        cost = plan.hours * price
        values |= {"fits": fits == "yes", "cost": cost if price else None}
        found[profile.name] = values
        gib = f"{plan.device_bytes / 2**30:.1f} of {profile.memory_gib:g}"
        rows.append((profile.name, config.train.strategy, gib, f"{plan.hours:,.1f}",
                     f"{cost:,.2f}" if price else "-", fits))  # fmt: skip
    ui.table(("profile", "strategy", "GiB", "hours", "cost", "fits"), rows)
    ui.result(inputs={"data": plans[0][0].config.train.data}, profiles=found)


def describe_plan(plan: RunPlan, config: Config, num_assets: int) -> dict[str, Any]:
    """Returns a plan as plain values: bytes, seconds, hours, passes over the data, cost."""
    price = config.launch.price_per_hour
    return {
        "strategy": config.train.strategy,
        "memory_bytes": dict(plan.rows()),
        "device_bytes": plan.device_bytes,
        "host_bytes": plan.host_bytes,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "kept_checkpoints": plan.kept_checkpoints,
        "trained_parameters": plan.footprint.trained,
        "parameters": plan.footprint.total,
        "recomputed_blocks": plan.checkpoint_blocks,
        "seconds_per_step": plan.seconds_per_step,
        "seconds_by_part": dict(plan.step_time.parts()),
        "steps": plan.steps,
        "epochs": plan.steps * plan.samples_per_step / num_assets,
        "hours": plan.hours,
        "cost": plan.hours * price if price else None,
    }


def _check_sources(config: Config, run: RunFolder) -> None:
    """Raises UsageError where `--force` would remove what the run is to start from, or read."""
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.training.base import find_start

    source = find_start(config)
    read = [*(source.inputs if source else ())]
    if "://" not in config.train.data:
        read.append(Path(config.train.data))
    if config.train.pairs:
        read.append(Path(config.train.pairs))
    named = Path(config.train.init)
    if config.train.init and named.exists():
        read.append(named)
    # Whatever lies in the run is removed, however it is spelled.
    check_outputs([run.root], read, hint="another --out: --force removes the run that is there")


def _describe_start(ui: UI, config: Config, dry_run: bool) -> str:
    from ultrashape_cli.errors import ConfigError
    from ultrashape_cli.training.base import find_start

    try:
        source = find_start(config)
    except ConfigError:
        # Memory and time can be planned before there are weights; a name that is given is checked.
        if config.train.init or not dry_run:
            raise
        return "weights that --init will name"
    _compare_with_generations(ui, config, source)
    if source is None:
        if config.train.objective == "distill":
            ui.warn("random weights have nothing to teach: give --init")
        return "random weights"
    guided = config.refine.guidance_scale not in (0.0, 1.0)
    if config.train.objective == "grpo" and guided and not source.distilled:
        ui.warn(
            "`grpo` samples without guidance, and these weights were not distilled to need none: "
            "`ushape distill --evaluations 0` first, or refine the result with "
            "--set refine.guidance_scale=0"
        )
    if source.distilled:
        _check_distilled(ui, config, source.distilled)
    if config.train.init:
        return f"`{config.train.init}`"
    return f"the weights of `{source.model}` that come with the package"


def _compare_with_generations(ui: UI, config: Config, source: WeightSource | None) -> None:
    """Warns where a run does not start from the weights that made what it trains on."""
    from ultrashape_cli.training.generations import TRAINED_ON_PAIRS

    if config.train.objective not in TRAINED_ON_PAIRS:
        return
    from ultrashape_cli.evaluation.keep import weight_digests
    from ultrashape_cli.rewards.generations import KeptGenerations

    made_by = KeptGenerations(Path(config.train.pairs)).about().get("weights")
    here = weight_digests(source) if source else {}
    if not isinstance(made_by, dict) or set(made_by.values()) != set(here.values()):
        ui.warn(
            f"the generations in `{config.train.pairs}` are of other weights than this run starts "
            "from: what was best or worst of theirs says less of these; make them anew with "
            "ushape evaluate --keep"
        )


def _check_distilled(ui: UI, config: Config, distilled: Distilled) -> None:
    """Refuses guidance upon weights that have it in them, warns of fine-tunes of them."""
    from ultrashape_cli.errors import ConfigError

    name, steps = config.train.init, distilled.evaluations
    if config.train.objective == "grpo" and steps and steps != config.reward.rollout_steps:
        ui.warn(
            f"`{name}` takes {steps} steps, and is sampled in {config.reward.rollout_steps} to be "
            f"judged: --set reward.rollout_steps={steps}"
        )
    if config.train.objective == "flow":
        ui.warn(
            f"`{name}` has been distilled, and fine-tunes of such weights drift back to many "
            "steps: fine-tune what they were made from, and distil the result"
        )
    elif config.train.objective == "distill" and config.distill.guidance_scale not in (0.0, 1.0):
        raise ConfigError(
            f"`{name}` has a guidance of {distilled.guidance:g} in it: "
            f"{config.distill.guidance_scale:g} would be counted on top",
            hint="--set distill.guidance_scale=0",
        )


def _reason(resolved: Resolved, plan: RunPlan) -> str:
    from ultrashape_cli.config.profiles import OFFLOAD_HOST_GIB, host_memory_gib

    profile, strategy = resolved.profile, resolved.config.train.strategy
    chosen = resolved.origins["train.strategy"].startswith("profile ")
    if chosen and strategy == profile.little_host_memory:
        host = resolved.config.launch.host_memory_gib or host_memory_gib()
        return (
            f"the host's memory decides: {host:.0f} GiB < {OFFLOAD_HOST_GIB:.0f} GiB, "
            f"which {profile.strategy} needs"
        )
    return plan.strategy.reason


def _show_plan(ui: UI, plan: RunPlan, values: dict[str, Any]) -> None:
    rows = [(name, f"{size / 2**30:.3f}") for name, size in plan.rows()]
    rows.append(("total", f"{plan.device_bytes / 2**30:.3f}"))
    ui.table(("memory per process", "GiB"), rows)
    found = plan.footprint
    ui.info(
        f"trains {found.trained:,} parameters of {found.total:,}, "
        f"recomputes {plan.checkpoint_blocks} blocks in the backward pass"
    )
    disk = plan.checkpoint_bytes / 2**30
    ui.info(
        f"host memory {plan.host_bytes / 2**30:.1f} GiB; disk {disk:.2f} GiB per checkpoint, "
        f"{disk * plan.kept_checkpoints:.1f} GiB for those kept"
    )
    cost = f", {values['cost']:,.2f} to pay" if values["cost"] else ""
    epochs = values["epochs"]
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in plan.step_time.parts())
    ui.info(
        f"estimate: {plan.seconds_per_step:.2f} s per step ({parts}), {plan.hours:,.1f} h for "
        f"{plan.steps:,} steps, {epochs:,.{0 if epochs >= 10 else 1}f} epochs of this data"
        f"{cost}"
    )
    if epochs > MANY_EPOCHS:
        ui.warn(
            f"{epochs:,.0f} passes over these assets: fine-tunes of more than {MANY_EPOCHS} "
            "rarely gain; lower --steps or give --epochs"
        )
