"""What `ushape train` checks and says before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.memory.plan import RunPlan
    from ultrashape_cli.ui import UI


def preflight(ui: UI, resolved: Resolved, run: RunFolder) -> None:
    """Fails in seconds, before weights are loaded; says what will be trained and what it needs."""
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.runs import complete_checkpoints
    from ultrashape_cli.training.base import check_init
    from ultrashape_cli.training.memory.plan import check_plan, plan_run
    from ultrashape_cli.training.validation import check_best_metric

    settings = resolved.config.train
    choose_device(resolved.config.device)
    dataset = Dataset(Path(settings.data))
    dataset.require()
    ids = dataset.read_split("train")[: settings.overfit or None]
    missing = [asset for asset in ids if not dataset.samples(asset).is_file()]
    if missing:
        raise DatasetError(
            f"no samples for {len(missing)} of {len(ids)} assets in `{dataset.root}`",
            hint=f"ushape sample {dataset.root} && ushape split {dataset.root}",
        )
    if not ids:
        raise DatasetError(f"`{dataset.root}` has no training assets", hint="ushape split")
    if not run.base.exists():
        check_init(resolved.config)
    check_best_metric(settings)
    plan = plan_run(resolved.config, resolved.profile)
    ui.info(
        f"profile {resolved.profile.name}: {settings.dtype}, {settings.strategy} "
        f"({plan.strategy.reason}), microbatch {settings.microbatch} x {settings.accumulation}, "
        f"{len(ids)} assets, seed {resolved.config.seed}"
    )
    _show_plan(ui, plan, resolved.config.launch.price_per_hour)
    check_plan(plan, resolved.config, resolved.profile)
    found = complete_checkpoints(run.checkpoints)
    if found:
        ui.info(f"resumes from {found[-1]}")


def _show_plan(ui: UI, plan: RunPlan, price_per_hour: float) -> None:
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
    cost = f", {plan.hours * price_per_hour:,.2f} to pay" if price_per_hour else ""
    ui.info(
        f"estimate: {plan.seconds_per_step:.2f} s per step, {plan.hours:,.1f} h "
        f"for {plan.steps:,} steps{cost}"
    )
