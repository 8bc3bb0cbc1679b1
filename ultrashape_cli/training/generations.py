"""Kept generations as training data: which of them count, and the images they were made from."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.config.schema import Config, TrainConfig
from ultrashape_cli.data.dataset import Item, ShapeDataset
from ultrashape_cli.data.images import preprocess_inference
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError, ConfigError, DatasetError
from ultrashape_cli.models.registry import ModelSpec, model_spec
from ultrashape_cli.packing.opened import open_dataset
from ultrashape_cli.rewards.generations import Generation, KeptGenerations
from ultrashape_cli.rewards.group import margins, weigh
from ultrashape_cli.rewards.table import parse_rewards, require, watched_rewards

TRAINED_ON_PAIRS = ("reject", "dpo")
"""Objectives whose data are kept generations."""
REWARDED = (*TRAINED_ON_PAIRS, "grpo")
"""Objectives that learn from rewards."""


@dataclass(frozen=True, slots=True)
class Picks:
    """The best and the worst generation of each asset whose generations differ."""

    kept: KeptGenerations
    places: dict[str, tuple[int, int]]
    """Asset -> places of the best and the worst among its seeds."""

    def __call__(self, asset: str, worst: bool) -> Generation:
        """Returns the best generation of an asset, or its worst."""
        return self.kept.read(asset, self.places[asset][worst])

    @property
    def assets(self) -> list[str]:
        """The assets that have one."""
        return list(self.places)


def find_picks(config: Config) -> Picks | None:
    """Returns the generations that a run trains on; None where its objective takes others.

    Raises:
        ConfigError: No folder was given, or its generations are of another model.
        DatasetError: It holds none, or none is better than the others of its asset.
    """
    settings = config.train
    if settings.objective not in TRAINED_ON_PAIRS:
        return None
    start = ["--checkpoint", settings.init] if settings.init else ["--model", settings.model]
    command = ["ushape", "evaluate", *start, "--keep", "8", "--split", "train"]
    made_by = shlex.join([*command, "--data", settings.data, "-o", "generations"])
    if not settings.pairs:
        raise ConfigError(
            f"the objective `{settings.objective}` trains on kept generations, and none are given",
            hint=f"{made_by}, then --pairs generations",
        )
    kept = KeptGenerations(Path(settings.pairs))
    about = kept.about()
    if about.get("model") != settings.model:
        raise ConfigError(
            f"the generations in `{kept.root}` are of model `{about.get('model')}`, "
            f"not `{settings.model}`",
            hint=f"--model {about.get('model')}",
        )
    weights = _weights(settings)
    places = {}
    groups = {asset: kept.rewards(asset, weights) for asset in kept.assets()}
    gaps = margins(groups, weights)
    least = config.reward.margin if settings.objective == "dpo" else 0.0
    for asset, group in groups.items():
        found = weigh(group, weights)
        if not found.flat and gaps[asset] > least:
            places[asset] = found.best, found.worst
    if not places:
        raise DatasetError(
            f"in `{kept.root}` no generation is better than the others of its asset "
            f"({len(groups)} assets, rewards {', '.join(settings.rewards)})",
            hint=f"other train.rewards, or more of them: {made_by}",
        )
    return Picks(kept, places)


def _weights(settings: TrainConfig) -> dict[str, float]:
    """Returns the weights of the rewards, of which there must be some."""
    if not settings.rewards:
        raise ConfigError(
            f"`{settings.objective}` learns from rewards, and `train.rewards` has none",
            hint="--set train.rewards=chamfer:1,components:0.5",
        )
    return parse_rewards(settings.rewards)


def require_training_assets(picks: Picks, train: Sequence[str]) -> None:
    """Raises DatasetError where generations are of held-out assets, or of none of the dataset."""
    others = sorted(set(picks.assets) - set(train))
    if others:
        raise DatasetError(
            f"{len(others)} of {len(picks.assets)} assets with generations in "
            f"`{picks.kept.root}` are not in the train list, such as `{others[0]}`: what is held "
            "out would be learned",
            hint="ushape evaluate --keep 8 --split train -o another folder",
        )


def generation_digests(picks: Picks) -> dict[str, str]:
    """Returns by asset what changes when its generations do."""
    return {asset: picks.kept.record_digest(asset) for asset in picks.assets}


def check_objective(config: Config) -> None:
    """Checks what a run takes that learns from what the network made itself.

    Raises:
        ConfigError: The settings do not go together.
        DatasetError: There are no generations to learn from.
        AssetError: Some are damaged, or not of the model.
    """
    settings = config.train
    name = settings.objective
    if settings.pairs and name not in TRAINED_ON_PAIRS:
        raise ConfigError(
            f"the objective `{name}` reads no generations, and --pairs names some",
            hint="--objective reject or dpo, or leave --pairs out",
        )
    if name not in REWARDED:
        return
    _weights(settings)
    if settings.stage != "dit":
        raise ConfigError(f"only the DiT is trained by `{name}`", hint="--stage dit")
    unfit: Mapping[str, tuple[Any, str]] = {
        "train.field_loss": (settings.field_loss, "generations have no true field"),
        "train.overfit": (settings.overfit, "whether a loss gets near zero is asked of plain data"),
        "train.latent_variants": (settings.latent_variants, "nothing is encoded"),
        "train.colour_jitter": (settings.colour_jitter, "images stay as they were seen"),
        "train.crop_jitter": (settings.crop_jitter, "images stay as they were seen"),
    }
    for key, (value, why) in unfit.items():
        if value:
            raise ConfigError(
                f"`{key}` does not go with the objective `{name}`: {why}", hint=f"--set {key}=0"
            )
    if name != "reject" and settings.strategy == "sharded":
        raise ConfigError(
            f"`{name}` asks for the whole network, and weights in shards are none",
            hint="leave train.strategy out: adapters need no second network",
        )
    require(list(watched_rewards(settings.rewards, config.reward.held_out)))
    if name == "grpo":
        _check_policy(config)
    if (picks := find_picks(config)) is not None:
        _check_generations(picks, model_spec(settings.model))


def _check_generations(picks: Picks, spec: ModelSpec) -> None:
    """Raises AssetError where generations are damaged, or of a model of another form."""
    for asset in picks.assets:
        generations = picks.kept.whole(asset)
        for found in (generations[place] for place in picks.places[asset]):
            inside = ((found.voxels >= 0) & (found.voxels < spec.vae.voxel_resolution)).all()
            starts = (found.start is not None) == (spec.start == "coarse")
            if found.latents.shape[1] != spec.dit.in_channels or not inside or not starts:
                raise AssetError(
                    f"generations of `{asset}` in `{picks.kept.root}` do not fit the model",
                    hint="make them anew with the weights that are to be trained",
                )


def _check_policy(config: Config) -> None:
    """Raises ConfigError or DatasetError where a run cannot make and judge its own generations."""
    reward = config.reward
    if config.launch.engine == "deepspeed":
        raise ConfigError("`grpo` does not run under deepspeed", hint="--set launch.engine=native")
    if reward.window > reward.rollout_steps:
        raise ConfigError(
            f"`reward.window` of {reward.window} does not fit in {reward.rollout_steps} steps",
            hint=f"--set reward.window={reward.rollout_steps}",
        )
    dataset = open_dataset(config.train.data, config.train.cache, config.train.cache_gib)
    dataset.require()
    require_truths(dataset, dataset.read_split("train"))


def require_truths(dataset: Dataset, assets: Sequence[str]) -> None:
    """Raises DatasetError where assets have no mesh to hold generations against."""
    missing = [asset for asset in assets if not dataset.has(dataset.mesh(asset))]
    if missing:
        raise DatasetError(
            f"no meshes for {len(missing)} of {len(assets)} assets in `{dataset.root}`, such as "
            f"`{missing[0]}`: rewards are of meshes",
            hint="a dataset of `ushape prepare`, or leave these assets out of its train list",
        )


class GenerationDataset(ShapeDataset):
    """Images of kept generations, as the network saw them; `GeneratedObjective` reads the rest.

    An item holds `uid`, `counter`, `variant` (-1), `image` [3, S, S], `mask` [1, S, S], `view` (0)
    and, if asked, the `checksum` of the image.

    Args:
        picks: The generations.
        given: What `ShapeDataset` takes, without the assets.
    """

    def __init__(self, root: Any, picks: Picks, **given: Any) -> None:
        super().__init__(root, picks.assets, **given)
        self.kept = picks.kept

    def bring(self, keys: list[tuple[int, int]]) -> None:
        """Does nothing: generations are here, whatever the dataset is."""

    def _item(self, asset_id: str, counter: int, rng: np.random.Generator) -> Item:
        rgba = self.kept.image(asset_id).numpy()
        assert self.image_size is not None
        image, mask = preprocess_inference(rgba, self.image_size(counter))
        item: Item = {"uid": asset_id, "counter": counter, "variant": -1, "view": 0}
        if self.checksums:
            item["checksum"] = zlib.crc32(np.ascontiguousarray(rgba).tobytes())
        return {**item, "image": image, "mask": mask}
