"""The model `mini`, a further row of the tables: all parts, and seconds to export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ball_networks import SMALL, ball_networks

from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.models.registry import MODELS
from ultrashape_cli.models.weights import write_safetensors

MINI = replace(
    SMALL,
    name="mini",
    start="coarse",
    vae=replace(SMALL.vae, scale_factor=0.8),
    dit=replace(SMALL.dit, depth=2, num_moe_layers=1, num_experts=3),
)
MODELS["mini"] = MINI
MODEL_SETTINGS["mini"] = {
    **MODEL_SETTINGS["tiny"],
    "refine.steps": 3,
    "refine.strength": 1.0,
    "refine.tokens": 64,
    "refine.grid_resolution": 32,
    "refine.surface_points": 2000,
}


def write_mini(path: Path, seed: int = 0, **said: str) -> Path:
    """Writes weights of the model whose field is about a ball."""
    metadata = {"model": "mini", **said}
    write_safetensors(path, ball_networks(MINI, seed)._asdict(), metadata)
    return path
