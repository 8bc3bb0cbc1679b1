"""What a service was started with, for all of its processes: a file that only its owner reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultrashape_cli.config.distilled import Distilled, for_distilled
from ultrashape_cli.config.resolve import Resolved, restore
from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.config.trained_views import TrainedViews, for_views
from ultrashape_cli.files import temporary_path
from ultrashape_cli.service.options import Settings

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that the service refines with."""

    path: str | None
    """What `--checkpoint` named; None where `named` or nothing was given."""
    named: str | None
    """What `--model` named."""
    family: str
    licence: str
    licence_url: str | None
    limits: str | None
    """Where the licence grants nothing."""
    files: dict[str, str] = field(default_factory=dict)
    """Network -> name of the file of its weights."""
    distilled: dict[str, Any] | None = None
    """How they are sampled, where they were distilled."""
    views: dict[str, Any] | None = None
    """How they were trained with several views."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings, checkpoints and cards."""

    config: Config
    checkpoints: dict[str, Checkpoint]
    settings: Settings
    devices: list[str] = field(default_factory=list)
    """Names of the cards; empty for the CPU."""
    job: str = "ultrashape_cli.service.worker"
    """Module that a worker process runs."""

    @property
    def serve(self) -> ServeConfig:
        """Returns the section of the service."""
        return self.config.serve

    @property
    def models(self) -> dict[str, str]:
        """Returns the model families by the names of their checkpoints."""
        return {name: each.family for name, each in self.checkpoints.items()}

    def resolve(self, name: str, options: Mapping[str, Any]) -> Resolved:
        """Returns the settings of a job with the weights of that name.

        Raises:
            ConfigError: A value of the options is bad, or does not go with the weights.
        """
        checkpoint = self.checkpoints[name]
        found = self.settings.resolve(checkpoint.family, options)
        found = for_distilled(found, Distilled.parse(checkpoint.distilled))
        return for_views(found, TrainedViews.parse(checkpoint.views))

    def text(self) -> str:
        """Returns the plan as JSON."""
        value = {**asdict(self), "config": flatten(self.config)}
        value["settings"]["flags"] = dict(self.settings.flags or {})
        return json.dumps(value, indent=1)

    def write(self, folder: Path) -> Path:
        """Writes the plan into the folder of the service; returns the file."""
        path = folder / PLAN_FILE
        with temporary_path(path) as temporary:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(self.text())
        return path

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Returns the plan in a file."""
        value: dict[str, Any] = json.loads(path.read_text())
        settings = value["settings"]
        return cls(
            restore(value["config"]),
            {name: Checkpoint(**each) for name, each in value["checkpoints"].items()},
            Settings(**{**settings, "overrides": tuple(settings["overrides"])}),
            value["devices"],
            value["job"],
        )
