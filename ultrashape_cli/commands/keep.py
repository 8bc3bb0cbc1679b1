"""`ushape evaluate --keep`: generations with their rewards, for `ushape train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.evaluation.rows import Asset
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def keep_many(
    ui: UI,
    resolved: Resolved,
    source: WeightSource,
    assets: list[Asset],
    out: Path,
    *,
    count: int,
    data: Path,
    split: str,
    checkpoint: Path | None,
    dry_run: bool,
) -> None:
    """Makes and keeps `count` generations of each asset; exits with 1 where one has failed."""
    from ultrashape_cli.config.distilled import for_distilled
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.errors import ConfigError
    from ultrashape_cli.evaluation.keep import (
        inputs_of,
        keep_generations,
        rewards_here,
        spread,
    )
    from ultrashape_cli.rewards.generations import INDEX, KeptGenerations
    from ultrashape_cli.rewards.table import REWARDS

    if resolved.config.evaluate.reference_views > 1:
        raise ConfigError("generations are kept of one image each",
                          hint="--set evaluate.reference_views=1")  # fmt: skip
    kept = KeptGenerations(out)
    here = rewards_here()
    missing = [name for name in REWARDS if name not in here]
    if missing:
        ui.info(f"not measured here: {', '.join(missing)}")
    if split != "train":
        ui.warn(
            f"generations of the list `{split}` cannot be trained on, as what is held out would be "
            "learned: --split train"
        )
    if dry_run:
        there = sum(kept.has(asset.id, inputs_of(asset)) for asset in assets)
        ui.info(f"{count} generations of {len(assets) - there} assets, {there} are there")
        ui.result(inputs={"assets": len(assets)}, outputs={})
        return
    config = for_distilled(resolved, source.distilled).config
    with ui.progress("keep", len(assets)) as bar:
        result = keep_generations(
            *(assets, source, config.refine, config.evaluate, kept),
            device=choose_device(config.device),
            seed=config.seed,
            count=count,
            progress=bar.update,
        )
        bar.update(len(assets))
    found = spread(kept)
    rows = [
        (name, *(f"{values[key]:.4f}" for key in ("mean", "best", "worst")), REWARDS[name].source)
        for name, values in found.items()
    ]
    ui.table(("reward", "mean", "best", "worst", "higher is better, of"), rows)
    for asset, why in result.failures.items():
        ui.warn(f"{asset}: {why}")
    if result.without_mesh:
        ui.warn(f"{result.without_mesh} generations have no mesh: they count as the worst")
    if found and split == "train":
        start = ["--init", str(checkpoint)] if checkpoint else []
        command = ["ushape", "train", "--data", str(data), "--model", source.model, *start]
        ui.hint(shlex.join([*command, "--objective", "reject", "--pairs", str(out)]))
    ui.result(
        status="error" if result.failures else "ok",
        inputs={"assets": len(assets)},
        outputs={"generations": str(out / INDEX)},
        rewards=found,
        failures=result.failures,
        counts={
            "made": result.made,
            "skipped": result.skipped,
            "failed": len(result.failures),
            "without_mesh": result.without_mesh,
        },
    )
    if result.failures:
        raise typer.Exit(1)


def require_none_kept(out: Path, keep: int | None, *, others: bool) -> None:
    """Raises UsageError where results other than generations would go among them, or are asked."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.rewards.generations import INDEX

    if keep and others:
        raise UsageError("--keep is of one checkpoint, and measures nothing else")
    if keep is None and (out / INDEX).exists():
        raise UsageError(f"`{out}` holds generations of --keep", hint="another -o")
