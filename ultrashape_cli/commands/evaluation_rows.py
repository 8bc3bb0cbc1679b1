"""The rows that `ushape evaluate` compares, by its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.evaluation.curve import Way
    from ultrashape_cli.evaluation.rows import Asset, Row
    from ultrashape_cli.models.sources import WeightSource


def refined_rows(
    resolved: Resolved,
    sources: dict[str, WeightSource],
    assets: list[Asset],
    *,
    vae: bool,
    ablation: bool,
) -> list[Row]:
    """Returns the input, the truth through autoencoders, and what checkpoints make of the input."""
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.evaluation.rows import (
        ROUND_TRIP,
        as_trained,
        coarse_row,
        refine_row,
        vae_row,
    )

    config = resolved.config
    device, seed = choose_device(config.device), config.seed
    refine, settings = config.refine, config.evaluate
    first = next(iter(sources))
    ceilings = sources if vae else {first: sources[first]} if settings.round_trip else {}
    rows = [coarse_row(settings)]
    rows += [
        vae_row(f"{ROUND_TRIP}{n}", source, refine, device, seed) for n, source in ceilings.items()
    ]
    if vae:
        return rows
    for name, source in sources.items():
        rows.append(refine_row(name, source, as_trained(resolved, source), settings, device, seed))
    if ablation:
        following = zip(assets, assets[1:] + assets[:1], strict=True)
        others = {asset.id: other for asset, other in following}
        common = (sources[first], as_trained(resolved, sources[first]), settings, device, seed)
        note = "the image of the next asset"
        rows.append(refine_row(f"{first}, wrong image", *common, others=others, note=note))
        rows.append(refine_row(f"{first}, no image", *common, blind=True, note="no image"))
    return rows


def curve_rows_of(
    resolved: Resolved, sources: dict[str, WeightSource], ways: dict[str, Way], others: bool
) -> list[Row]:
    """Returns the input, and checkpoints with every solver; UsageError where `others` are asked."""
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.evaluation.curve import curve_rows
    from ultrashape_cli.evaluation.rows import coarse_row

    if others:
        raise UsageError("--curve has rows of its own", hint="leave --vae and --ablation out")
    device = choose_device(resolved.config.device)
    return [coarse_row(resolved.config.evaluate), *curve_rows(resolved, sources, ways, device)]


def read_pairs(folder: Path, limit: int | None) -> tuple[list[Asset], list[Row]]:
    """Returns the truths of a folder of pairs and a row for each tool.

    Raises:
        UsageError: It is no such folder.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.evaluation.rows import Asset, folder_row
    from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

    truth = folder / "truth"
    tools = [path for path in sorted(folder.glob("*/")) if path != truth] if truth.is_dir() else []
    files = [p for p in sorted(truth.iterdir()) if p.suffix in MESH_SUFFIXES] if tools else []
    if not files:
        raise UsageError(
            f"`{folder}` is not a folder of pairs",
            hint=f"put ground truths into {truth} and each tool's meshes into a folder beside it",
        )
    assets = [Asset(path.stem, path) for path in files[:limit]]
    return assets, [folder_row(tool.name, tool, MESH_SUFFIXES) for tool in tools]
