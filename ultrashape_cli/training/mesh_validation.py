"""Validation by what training is for: held-out assets refined, decoded, measured and pictured.

samples/base/                 the same for the weights that the run started from, once
samples/step-00001000/
  metrics.json                scores by asset and their means: coarse, base, current, ema
  ID-NAME.png                 NAME: reference, coarse, base, current, ema, truth
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ultrashape_cli.config.distilled import Distilled
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.devices import compute_dtype
from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import mesh_scores
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.round_trip import reconstruct
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.conditioner import ImageConditioner
from ultrashape_cli.models.registry import Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.rewards.measures import Picture
from ultrashape_cli.rewards.table import REWARDS, Evidence, measure, watched_rewards
from ultrashape_cli.runs import RunFolder, checkpoint_name
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.training.generations import REWARDED
from ultrashape_cli.training.judge import read_picture
from ultrashape_cli.training.memory.strategies import whole_weights
from ultrashape_cli.training.objectives.flow import ConditionedDiT

logger = logging.getLogger(__name__)

SCORES = (
    *("chamfer_l1", "chamfer_l2", "normal_consistency", "volume_iou", "watertight"),
    *("f_score@0.001", "f_score@0.005", "f_score@0.01", "f_score@0.02"),
)
"""What is kept of `mesh_scores`."""
METRIC_POINTS = 50_000
_NO_MESH = -24.0
"""Of what has no least value: no mesh has 2^24 loose parts, handles or faces, nor is so far off."""
_PICTURE = 256

Scores = dict[str, float]
Produce = Callable[[Mesh, np.ndarray, int], Mesh | None]
"""Coarse mesh (the truth itself for an autoencoder), image and seed -> result, None without a
surface."""


class MeshValidation:
    """Refines a few held-out assets from coarse versions of themselves, always the same ones.

    Args:
        config: Settings of the run.
        run: Where pictures and scores go.
        dataset: Where the assets are.
        ids: The assets.
        num_latents: Most tokens, those that the run ends with.
        source: The weights the run started from.
        conditioner: The frozen conditioner; None where it trains or there is none.
        device: Where the networks are.
        gather: This process's rows by asset -> those of all processes.
        share: Rank and number of processes that share the assets; one of one where all of them
            must compute the same, as with weights in shards.
        main: Write files.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        dataset: Dataset,
        ids: Sequence[str],
        *,
        num_latents: int,
        source: WeightSource,
        conditioner: ImageConditioner | None,
        device: torch.device,
        gather: Callable[[dict[str, Any]], dict[str, Any]] = lambda rows: rows,
        share: tuple[int, int] = (0, 1),
        main: bool = True,
    ) -> None:
        self.config = config
        self.run = run
        self.dataset = dataset
        self.ids = list(ids)
        self.num_latents = num_latents
        self.source = source
        self.conditioner = conditioner
        self.device = device
        self.gather = gather
        self.share = share
        self.main = main
        self.watched: dict[str, bool] = {}
        """Rewards that are measured, and whether they are held out."""
        if config.train.objective in REWARDED:
            self.watched = watched_rewards(config.train.rewards, config.reward.held_out)

    @property
    def _base(self) -> Path:
        return self.run.root / "samples" / "base"

    @property
    def _made(self) -> Distilled | None:
        return Distilled.parse((read_json(self.run.base) or {}).get("distilled"))

    def prepare(self, load_start: Callable[[], nn.Module]) -> None:
        """Scores the weights the run starts from, and the coarse meshes, once for the whole run.

        Args:
            load_start: Returns the network with those weights, on the device and in eval mode.
        """
        done = read_json(self._base / "metrics.json")
        wanted = {"ids": self.ids, "rewards": sorted(self.watched)}
        if isinstance(done, dict) and {"rewards": [], **done}.items() >= wanted.items():
            return
        rows = self._rows({"base": load_start()}, self._base, inputs=True)
        if self.main:
            write_json(self._base / "metrics.json", {**wanted, "assets": rows})

    def __call__(
        self,
        component: nn.Module,
        step: int,
        averaged: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> tuple[dict[str, float], dict[str, Path]]:
        """Returns metrics by name and pictures by name; every process must call it.

        Args:
            component: The network as it trains, in eval mode.
            step: Of the run.
            averaged: Puts the averaged weights in the network's place while it is open.
        """
        folder = self.run.root / "samples" / checkpoint_name(step)
        rows = self._rows({"current": component}, folder)
        if averaged is not None:
            with averaged():
                rows = _merge(rows, self._rows({"ema": component}, folder))
        base = read_json(self._base / "metrics.json") or {}
        rows = _merge(base.get("assets", {}), rows)
        means = _means(rows)
        if self.main:
            for picture in self._base.glob("*.png"):
                _link(picture, folder / picture.name)
            assets = [{"id": asset, **rows[asset]} for asset in self.ids if asset in rows]
            write_json(folder / "metrics.json", {"step": step, "assets": assets, "mean": means})
        values = {
            f"val_{'' if kind == 'current' else f'{kind}_'}{name}": value
            for kind, scores in means.items()
            for name, value in scores.items()
        }
        return values, {path.stem: path for path in sorted(folder.glob("*.png"))}

    def _rows(
        self, variants: Mapping[str, nn.Module], folder: Path, *, inputs: bool = False
    ) -> dict[str, dict[str, Scores]]:
        """Returns asset -> variant -> scores, over all processes, and writes the pictures."""
        rank, world = self.share
        rows: dict[str, dict[str, Scores]] = {}
        with self._producers(variants, inputs) as producers:
            for asset in self.ids[rank::world]:
                truth = load_mesh(self.dataset.fetched(self.dataset.mesh(asset)))
                picture = self._picture(asset)
                rgba = picture.rgba
                coarse = truth if self.config.train.stage == "vae" else coarsen(truth)
                seed = self.config.seed
                made = {kind: produce(coarse, rgba, seed) for kind, produce in producers.items()}
                if inputs:
                    made["coarse"] = coarse
                seen = Evidence(truth=truth, before=coarse, views=[picture])
                rows[asset] = {
                    kind: _scores(mesh, truth) | self._rewards(mesh, seen)
                    for kind, mesh in made.items()
                }
                if self.watched and asset == self.ids[0]:
                    for kind, produce in producers.items():
                        other = produce(coarse, rgba, seed + 1)
                        rows[asset][kind] |= _seed_spread(made[kind], other)
                if self.main or world > 1:
                    self._draw(folder, asset, made, truth, rgba if inputs else None)
        return self.gather(rows)

    def _picture(self, asset: str) -> Picture:
        """Returns the first view, and from where it was seen if a reward asks that."""
        if self.watched:
            return read_picture(self.dataset, asset, 0)
        return Picture(load_rgba(self.dataset.fetched(self.dataset.view_files(asset)[0])))

    def _rewards(self, mesh: Mesh | None, seen: Evidence) -> Scores:
        """Returns the watched rewards of a mesh; without one, the least that each can be."""
        if mesh is None:
            values: Mapping[str, float | None] = {
                n: max(REWARDS[n].low, _NO_MESH) for n in self.watched
            }
        else:
            values = measure(mesh, list(self.watched), seen)
        return {
            f"{'held' if self.watched[name] else 'reward'}_{name}": value
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        }

    @contextlib.contextmanager
    def _producers(self, variants: Mapping[str, nn.Module], start: bool) -> Any:
        """Yields what makes a mesh, by variant; the decoder is loaded for as long as it lasts.

        `start` says that the variants are what the run began with.
        """
        settings, spec = self.config.train, model_spec(self.config.train.model)
        refine = self.config.refine
        if found := self.source.distilled if start else self._made:
            refine = found.sampled(refine)
        if settings.objective == "grpo":
            # As it samples while it learns, and as it is to be sampled afterwards.
            refine = replace(refine, guidance_scale=0.0)
        resolution = min(refine.grid_resolution, settings.mesh_resolution)
        if settings.stage == "vae":

            def round_trip(vae: nn.Module) -> Produce:
                assert isinstance(vae, ShapeVAE)
                tokens = self.num_latents
                return lambda mesh, rgba, seed: reconstruct(vae, mesh, tokens, resolution, seed)

            yield {kind: round_trip(net) for kind, net in variants.items()}
            return
        half = compute_dtype(settings.dtype)
        vae = load_networks(
            self.source,
            components=("vae",),
            vae_parts=spec.inference_parts(encodes=refine.encodes),
            device=self.device,
            dtype=half,
        ).vae
        config = replace(
            refine,
            tokens=self.num_latents,
            grid_resolution=resolution,
            frame="normalised",
            dtype=settings.dtype,
            attention="sdpa",
            # Shards are only gathered in the network's own forward pass.
            cache_context=whole_weights(self.config),
            # The trained network stays where training has it.
            memory="resident",
            compile=False,
        )

        def refiner(net: nn.Module) -> Produce:
            dit, conditioner = net, self.conditioner
            if isinstance(net, ConditionedDiT):
                dit, conditioner = net.dit, net.conditioner
            networks = Networks(vae, dit, conditioner)  # type: ignore[arg-type]
            made = Refiner(networks, spec, config, self.device)

            def produce(mesh: Mesh, rgba: np.ndarray, seed: int) -> Mesh | None:
                try:
                    return made.refine(mesh, rgba, seed).mesh
                except MeshError as error:
                    logger.info("validation: %s", error.message)
                    return None

            return produce

        yield {kind: refiner(net) for kind, net in variants.items()}

    def _draw(
        self,
        folder: Path,
        asset: str,
        meshes: Mapping[str, Mesh | None],
        truth: Mesh,
        rgba: np.ndarray | None,
    ) -> None:
        cameras = view_set(1, radius=bounding_radius(truth), size=_PICTURE)
        shown = {**meshes, "truth": truth} if rgba is not None else meshes
        for kind, mesh in shown.items():
            if mesh is not None:
                view = next(iter(render_views(Scene(mesh), cameras)))
                save_png(view, folder / f"{asset}-{kind}.png")
        if rgba is not None:
            save_png(rgba, folder / f"{asset}-reference.png")


def _seed_spread(mesh: Mesh | None, other: Mesh | None) -> Scores:
    """Returns how far results of two seeds are apart: a model that only knows one has 0 left."""
    if mesh is None or other is None:
        return {}
    return {"seed_spread": mesh_scores(mesh, other, METRIC_POINTS)["chamfer_l1"]}


def _scores(mesh: Mesh | None, truth: Mesh) -> Scores:
    if mesh is None:
        return {"surface": 0.0}
    found = mesh_scores(mesh, truth, METRIC_POINTS)
    return {"surface": 1.0, **{name: found[name] for name in SCORES if name in found}}


def _merge(
    first: Mapping[str, dict[str, Scores]], second: Mapping[str, dict[str, Scores]]
) -> dict[str, dict[str, Scores]]:
    return {
        asset: {**first.get(asset, {}), **second.get(asset, {})}
        for asset in dict.fromkeys([*first, *second])
    }


def _means(rows: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
    """Returns the mean of each score over the assets that have it, by variant."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows.values():
        for kind, scores in row.items():
            for name, value in scores.items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
    return {
        kind: {name: sum(values) / len(values) for name, values in scores.items()}
        for kind, scores in found.items()
    }


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links
        shutil.copyfile(source, target)
