"""Image tokens of the frozen conditioner, and the cache of them that a run may keep.

An entry is what the conditioner said of one image alone, in the dtype in which it said it. Using it
gives the same loss, bit for bit, as asking again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.training.objectives.kept import KeptTensors


class View(NamedTuple):
    """An image that a network has seen."""

    asset_id: str
    number: int
    """Among the asset's views."""
    checksum: int
    """Of its file: a view that was rendered anew is another one."""
    pixels: int
    """Along one side, as the conditioner saw it."""


class TokenCache(KeptTensors):
    """Image tokens by asset, view and pixels: of the full model up to 10.4 MiB each."""

    def read(self, view: View) -> Tensor | None:  # [L, C]
        """Returns an entry, or None where it is not there, not readable, or of an older image."""
        found = self.load(view.asset_id, _name(view))
        if found is None or not found.keys() >= {"tokens", "checksum"}:
            return None
        return found["tokens"] if int(found["checksum"]) == view.checksum else None

    def write(self, view: View, tokens: Tensor) -> None:
        """Keeps the tokens [L, C] of a view, instead of those of an older image."""
        checksum = torch.tensor(view.checksum)
        self.save(view.asset_id, _name(view), {"tokens": tokens, "checksum": checksum})


def check_token_cache(settings: TrainConfig) -> None:
    """Raises ConfigError where `train.token_cache` is set and no image would come again."""
    trains = "conditioner" in settings.trained_networks
    problems = [
        (settings.stage != "dit", "the VAE sees no images", "train.token_cache=false"),
        (settings.colour_jitter > 0, "colours change every time", "train.colour_jitter=0"),
        (settings.crop_jitter > 0, "crops change every time", "train.crop_jitter=0"),
        (trains, "the conditioner changes with every step", "train.train_conditioner=false"),
    ]
    found = [(why, fix) for wrong, why, fix in problems if wrong]
    if settings.token_cache and found:
        raise ConfigError(
            f"train.token_cache keeps what never comes again: {', '.join(why for why, _ in found)}",
            hint=" ".join(f"--set {fix}" for _, fix in found),
        )


def _name(view: View) -> str:
    return f"{view.number}-{view.pixels}"
