"""Token counts and image sizes that change with the step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ultrashape_cli.errors import ConfigError

PATCH = 14
"""Pixels of one patch of the conditioner: image sizes are multiples of it."""


class Stage(NamedTuple):
    """Sizes from one step on."""

    first_step: int
    num_latents: int
    image_size: int


def parse_curriculum(texts: Sequence[str], *, num_latents: int, image_size: int) -> list[Stage]:
    """Returns the stages in order, beginning with the plain sizes where none starts at step 0.

    Args:
        texts: `STEP:TOKENS@PIXELS`, steps rising.
        num_latents: Tokens before the first stage.
        image_size: Pixels before the first stage.

    Raises:
        ConfigError: Not of that form, not rising, or pixels that are no whole patches.
    """
    stages = [Stage(0, num_latents, image_size)]
    for text in texts:
        match = re.fullmatch(r"(\d+):(\d+)@(\d+)", text)
        if match is None:
            raise ConfigError(
                f"train.curriculum: `{text}` is not STEP:TOKENS@PIXELS",
                hint="for example 0:4096@518,10000:8192@1022",
            )
        stage = Stage(*map(int, match.groups()))
        if stage.first_step == 0:
            stages.clear()
        if stages and stage.first_step <= stages[-1].first_step:
            raise ConfigError("train.curriculum: steps must rise", hint="order the stages by step")
        if not stage.num_latents or not stage.image_size or stage.image_size % PATCH:
            raise ConfigError(
                f"train.curriculum: `{text}` needs tokens above 0 and pixels in multiples "
                f"of {PATCH}",
                hint="518 and 1022 are the usual sizes",
            )
        stages.append(stage)
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """Returns the stage that step number `step` (from 0) belongs to."""
    return [stage for stage in stages if stage.first_step <= step][-1]


class ImageSizes:
    """Image size of a sample by its counter; travels to the loader's processes."""

    def __init__(self, stages: Sequence[Stage], samples_per_step: int) -> None:
        self._stages = list(stages)
        self._samples_per_step = samples_per_step

    def __call__(self, counter: int) -> int:
        """Returns the pixels of sample number `counter`."""
        return stage_at(self._stages, counter // self._samples_per_step).image_size
