"""Rewards of latents while a run trains: decoded, and held against the asset they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.posed_views import CAMERAS
from ultrashape_cli.errors import MeshError
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.view_files import seen_from
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.registry import Networks, model_spec
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.rewards.decoded import measure_decoded
from ultrashape_cli.rewards.group import GroupRewards, weigh
from ultrashape_cli.rewards.measures import Picture
from ultrashape_cli.rewards.table import Evidence, Values, parse_rewards
from ultrashape_cli.training.objectives.policy import Sample


class GroupJudge:
    """Decodes the latents of a group and returns what its members are worth.

    Meshes are judged as they are decoded, before loose parts are removed.

    Args:
        config: Settings of the run.
        dataset: Where truths and views are.
        vae: With its decoder.
        device: Where that is.
    """

    def __init__(
        self, config: Config, dataset: Dataset, vae: ShapeVAE, device: torch.device
    ) -> None:
        self.dataset = dataset
        self.weights: Mapping[str, float] = parse_rewards(config.train.rewards)
        settings = replace(
            config.refine,
            grid_resolution=config.reward.resolution,
            frame="normalised",
            dtype=config.train.dtype,
            attention="sdpa",
            memory="resident",
            compile=False,
        )
        networks = Networks(vae, None, None)
        self._refiner = Refiner(networks, model_spec(config.train.model), settings, device)

    def __call__(self, latents: Tensor, sample: Sample) -> GroupRewards:
        """Returns the worth of scaled latents [G, M, C] of one asset.

        Raises:
            AssetError: Its mesh or its view cannot be read.
        """
        truth = load_mesh(self.dataset.fetched(self.dataset.mesh(sample.asset)))
        picture = read_picture(self.dataset, sample.asset, sample.view)
        evidence = Evidence(truth=truth, views=[picture])
        return weigh([self._member(one, evidence) for one in latents], self.weights)

    def _member(self, latents: Tensor, evidence: Evidence) -> Values | None:
        try:
            return measure_decoded(self._refiner, latents, list(self.weights), evidence)
        except MeshError:  # what does not decode is the worst of its group
            return None


def read_picture(dataset: Dataset, asset: str, view: int) -> Picture:
    """Returns a view of an asset and from where it was seen; the front where no camera is told.

    Raises:
        AssetError: The view cannot be read, or a packed dataset does not give it.
        UsageError: The list of cameras is damaged.
    """
    path, cameras = dataset.view_files(asset)[view], dataset.views(asset) / CAMERAS
    dataset.fetched(path)
    if dataset.has(cameras):
        dataset.fetched(cameras)  # of a packed dataset: `seen_from` looks beside the view
    return Picture(load_rgba(path), *seen_from(path))
