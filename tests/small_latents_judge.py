"""A judge without meshes: the reward of latents is minus their mean square."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ultrashape_cli.rewards.group import GroupRewards, weigh


class SmallLatents:
    """Takes the place of `GroupJudge`."""

    def __init__(self, *given: Any) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, latents: Tensor, sample: Any) -> GroupRewards:
        self.asked.append(latents)
        values = (-latents.square().flatten(1).mean(1)).tolist()
        return weigh([{"small": value} for value in values], {"small": 1.0})


def train_in_process(rank: int, root: Path) -> None:
    """Trains a run with that judge, for `process_pair.run_in_two`."""
    import small_model  # noqa: F401

    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.processes import leave
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training import build
    from ultrashape_cli.training.worker import train_run

    build.GroupJudge = SmallLatents  # type: ignore[assignment,misc]
    run = RunFolder(root)
    leave(train_run(run, resolve(file=run.config, environ={}).config))
