"""The model `small`, a further row of the tables: a fraction of the time of `tiny`."""

from __future__ import annotations

from dataclasses import replace

from ball_networks import SMALL

from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.models.registry import MODELS

MODELS["small"] = replace(SMALL, name="small")
MODEL_SETTINGS["small"] = {**MODEL_SETTINGS["tiny"], "refine.strength": 1.0}
