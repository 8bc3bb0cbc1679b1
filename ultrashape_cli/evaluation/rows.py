"""The rows of an evaluation: what makes a mesh from a held-out asset."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ultrashape_cli import __version__
from ultrashape_cli.config.distilled import for_distilled
from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.config.schema import EvaluateConfig, RefineConfig
from ultrashape_cli.config.trained_views import for_views
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError, DatasetError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.inference.prepared import add_views
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.round_trip import reconstruct
from ultrashape_cli.inference.view_files import seen_from
from ultrashape_cli.inference.views import View
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES, load_mesh
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.synthetic.coarsen import coarsen

INPUT, ROUND_TRIP = "coarse", "vae "
"""Name of the row of the input, and how those of the autoencoders begin."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One ground truth with what refinement starts from."""

    id: str
    truth: Path
    image: Path | None = None
    coarse: Path | None = None
    """A given coarse mesh; None makes one from the truth."""
    views: Sequence[Path] = ()
    """All images of it, from the front on around it."""


@dataclass(slots=True)
class Made:
    """A mesh in the normalised frame, and what it took."""

    mesh: Mesh | None
    """None where the field had no surface."""
    scores: dict[str, float] = field(default_factory=dict)


Make = Callable[[Asset, Mesh], Made]
"""Asset and its truth -> mesh."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result."""

    name: str
    note: str
    inputs: dict[str, Any]
    """All that its meshes depend on, beside the asset."""
    load: Callable[[], Make]
    """Loads networks, once for all assets."""

    @property
    def fingerprint(self) -> str:
        """Changes with the inputs, and with the version that made them."""
        text = json.dumps([__version__, self.name, self.inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def held_out_assets(data: Path, split: str, coarse: Path | None, limit: int | None) -> list[Asset]:
    """Returns the assets of a list with their images and given coarse meshes, at most `limit`.

    Raises:
        DatasetError: The list is empty, or a coarse mesh is missing.
    """
    dataset = Dataset(data)
    dataset.require()
    ids = dataset.read_split(split)[:limit] if dataset.list_path(split).is_file() else []
    if not ids:
        share = "" if split == "train" else f" --{split} 0.1"
        raise DatasetError(
            f"`{data}` has no {split} assets", hint=f"ushape split {shlex.quote(str(data))}{share}"
        )
    given: dict[str, Path] = {}
    if coarse is not None:
        given = {path.stem: path for path in coarse.iterdir() if path.suffix in MESH_SUFFIXES}
        missing = [asset for asset in ids if asset not in given]
        if missing:
            raise DatasetError(
                f"`{coarse}` lacks {len(missing)} of {len(ids)} meshes, such as `{missing[0]}`",
                hint="name each coarse mesh like its asset",
            )
    found = []
    for asset in ids:
        views = dataset.view_files(asset)
        image = views[0] if views else None
        found.append(Asset(asset, dataset.mesh(asset), image, given.get(asset), views))
    return found


def coarse_of(asset: Asset, truth: Mesh, settings: EvaluateConfig) -> Mesh:
    """Returns the given coarse mesh, fitted to the cube, or the truth without its detail."""
    if asset.coarse is None:
        mesh = coarsen(truth, settings.coarse_resolution, settings.coarse_smoothing)
    else:
        mesh = load_mesh(asset.coarse)
    return Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)


def coarse_row(settings: EvaluateConfig) -> Row:
    """Returns what to beat: the coarse mesh itself."""

    def make(asset: Asset, truth: Mesh) -> Made:
        return Made(coarse_of(asset, truth, settings))

    return Row(INPUT, "the input itself", asdict(settings), lambda: make)


def folder_row(name: str, folder: Path, suffixes: Sequence[str]) -> Row:
    """Returns the meshes of another tool, by name; they keep their frame."""
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in suffixes}

    def make(asset: Asset, truth: Mesh) -> Made:
        if asset.id not in files:
            raise AssetError(
                f"`{folder}` has no mesh `{asset.id}`", hint=f"names must equal those of {name}"
            )
        return Made(load_mesh(files[asset.id]))

    return Row(name, str(folder), {"files": _stats(files.values())}, lambda: make)


def vae_row(
    name: str, source: WeightSource, refine: RefineConfig, device: torch.device, seed: int
) -> Row:
    """Returns the truth encoded and decoded by the autoencoder of a checkpoint.

    A ceiling where no refined mesh is better: refining can also make up for what it loses.
    """

    def load() -> Make:
        vae = load_networks(source, components=("vae",), device=device).vae
        assert vae is not None
        tokens, cells = refine.tokens, refine.grid_resolution

        def make(asset: Asset, truth: Mesh) -> Made:
            return _timed(device, lambda: reconstruct(vae, truth, tokens, cells, seed))

        return make

    inputs = {"weights": _stats([source.files["vae"]]), "refine": asdict(refine), "seed": seed}
    return Row(name, "the truth through the autoencoder", inputs, load)


def as_trained(resolved: Resolved, source: WeightSource) -> RefineConfig:
    """Returns the settings of refining by weights: as they were distilled, and shown views.

    Raises:
        ConfigError: The user's settings do not suit them.
    """
    return for_views(for_distilled(resolved, source.distilled), source.views).config.refine


def refine_row(
    name: str,
    source: WeightSource,
    refine: RefineConfig,
    settings: EvaluateConfig,
    device: torch.device,
    seed: int,
    *,
    others: Mapping[str, Asset] | None = None,
    blind: bool = False,
    note: str = "",
) -> Row:
    """Returns the refined meshes of a checkpoint.

    Args:
        name: Of the row.
        source: The weights.
        refine: Settings of `ushape refine`.
        settings: How coarse meshes are made.
        device: Where networks run.
        seed: Of everything random.
        others: Asset -> the one whose images are shown in place of its own.
        blind: Use no image.
        note: Said beside the row.
    """
    refine = replace(refine, frame="normalised")

    def load() -> Make:
        refiner = Refiner.load(source, refine, device)

        def make(asset: Asset, truth: Mesh) -> Made:
            count = 0 if blind else settings.reference_views
            views = _shown((others or {}).get(asset.id, asset), count)
            coarse = coarse_of(asset, truth, settings)

            def refined() -> Mesh:
                prepared = refiner.prepare(coarse, seed)
                if views:
                    add_views(prepared, views, refiner.spec, refiner.config)
                rgba = views[0].rgba if views else None
                return refiner.finish(prepared, refiner.evaluate(prepared, rgba)).mesh

            made = _timed(device, refined)
            made.scores["passes"] = float(refiner.passes)
            return made

        return make

    inputs = {
        "weights": _stats(source.weight_files),
        "refine": asdict(refine),
        "coarse": asdict(settings),
        "seed": seed,
        "images": {asset: str(other.image) for asset, other in (others or {}).items()},
        "blind": blind,
    }
    return Row(name, note or str(source.files["dit"]), inputs, load)


def _shown(asset: Asset, count: int) -> list[View]:
    """Returns images of an asset, the first and others evenly around it.

    Raises:
        AssetError: It has not so many, or one cannot be read.
    """
    # An asset that was not read from a dataset has the one image.
    files = asset.views or ([asset.image] if asset.image else [])
    if len(files) < count:
        # DATA/meshes/ID.ply
        data = shlex.quote(str(asset.truth.parent.parent))
        wanted = f"--views {count} " if count > 1 else ""
        raise AssetError(
            f"asset `{asset.id}` has {len(files) or 'no'} image{'s' * (len(files) > 1)}"
            + (f", and evaluate.reference_views asks for {count}" if count > 1 else ""),
            hint=f"ushape render {wanted}{data}",
        )
    chosen = [files[number * len(files) // count] for number in range(count)]
    return [View(path, load_rgba(path), *seen_from(path)) for path in chosen]


def _timed(device: torch.device, make: Callable[[], Mesh | None]) -> Made:
    from ultrashape_cli.errors import MeshError

    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    try:
        mesh = make()
    except MeshError:  # the field has no surface: a result, and a bad one
        mesh = None
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) if cuda else psutil.Process().memory_info().rss
    return Made(mesh, {"seconds": seconds, "memory_gib": peak / 2**30})


def _stats(files: Any) -> list[list[Any]]:
    return [
        [str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(set(files))
    ]
