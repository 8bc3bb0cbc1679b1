"""Samples that show several views of their asset, with the cameras (`train.views`).

Legend: B samples, V views of all of them, F camera features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.view_embedding import JoinedViews, camera_features, join_views


class ShownViews(NamedTuple):
    """Which views of a microbatch belong to which sample, and from where they were seen."""

    counts: list[int]  # B
    cameras: Tensor  # [V, F]

    @classmethod
    def of(cls, batch: Item) -> ShownViews | None:
        """Returns those of a microbatch; None where each sample shows one view without camera."""
        if "num_views" not in batch:
            return None
        return cls(batch["num_views"].tolist(), camera_features(batch["camera"]))

    @property
    def owners(self) -> list[int]:
        """Sample of each view."""
        return [row for row, count in enumerate(self.counts) for _ in range(count)]

    def join(self, tokens: Tensor, lengths: Sequence[int]) -> JoinedViews:
        """Returns the tokens of all views, [V, L, X], as one context of each sample."""
        return join_views(tokens, lengths, self.cameras, self.counts)

    def of_rows(self, rows: Sequence[int], views: Tensor) -> ShownViews:
        """Returns those of some samples, whose `views` [W] are on the device."""
        return ShownViews([self.counts[row] for row in rows], self.cameras[views])

    def places(self, rows: Sequence[int]) -> list[int]:
        """Returns the views of some samples."""
        first = list(accumulate(self.counts, initial=0))
        return [view for row in rows for view in range(first[row], first[row + 1])]


def check_views(settings: TrainConfig) -> None:
    """Raises ConfigError where a run cannot show its samples several views."""
    if settings.views == 1:
        return
    one = "--set train.views=1"
    if settings.stage != "dit":
        raise ConfigError("the VAE sees no images: train.views is for the DiT", hint=one)
    if settings.objective != "flow":
        raise ConfigError(
            f"`{settings.objective}` shows its samples one image: train.views is for the objective "
            "`flow`",
            hint=f"{one}; train with views first, and go on from that run with one",
        )
