"""What each model changes in the default settings. Free of torch; the nets are in `models`."""

from __future__ import annotations

import difflib
from typing import Any

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.errors import ConfigError

MODEL_SETTINGS: dict[str, dict[str, Any]] = {
    "ultrashape-1.0": {},
    "tiny": {
        "train.microbatch": 4,
        "train.accumulation": 1,
        "train.activation_checkpointing": "none",
        "train.learning_rate": 1e-3,
        "train.warmup_steps": 50,
        "train.steps": 2000,
        "train.train_conditioner": True,
        "train.num_latents": 256,
        "train.surface_points": 4096,
        "train.query_points": 768,
        "train.validate_every_steps": 200,
        "train.validate_meshes": 2,
        "train.mesh_resolution": 128,
        "train.save_every_steps": 200,
        "distill.guidance_scale": 2.0,
        "reward.resolution": 96,
        "refine.steps": 20,
        "refine.guidance_scale": 2.0,
        "refine.tokens": 3072,
        # On shapes it has not seen the whole way is too far, half of it helps on most.
        "refine.strength": 0.5,
        "refine.grid_resolution": 128,
        "refine.surface_points": 65_536,
    },
}


_ONE_STEP = {"refine.solver": "euler", "refine.steps": 2, "refine.guidance_scale": 0.0}

QUALITY_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    # From `examples/bench/sampling.py`: of a small model whose flow starts from noise, latents
    # differ from the plain sampler's by 1.2 % and 2.0 %, with 18 and 12 of 98 passes; Heun's by
    # 1.4 % with 48. Surfaces of the first differ by as much as two sets of samples of one.
    "ultrashape-1.0": {
        "standard": {"refine.solver": "ab2", "refine.steps": 13, "refine.guidance_reuse": 2},
        "draft": {
            "refine.solver": "ab2",
            "refine.steps": 9,
            "refine.guidance_reuse": 2,
            "refine.tokens": 16_384,
            "refine.grid_resolution": 512,
        },
    },
    # Its path is straight from the coarse mesh: one step is all of it.
    "tiny": {
        "standard": _ONE_STEP,
        "draft": {**_ONE_STEP, "refine.grid_resolution": 64},
    },
}
"""What the presets below `max` change for each model; `max` is the plain sampler."""


def quality_settings(model: str, quality: str) -> dict[str, Any]:
    """Returns the config keys that a preset sets for a known model."""
    return QUALITY_SETTINGS.get(model, {}).get(quality, {})


def plain_steps(model: str) -> int:
    """Returns the steps of a model's plain sampler."""
    return int(model_settings(model).get("refine.steps", RefineConfig().steps))


def model_settings(name: str) -> dict[str, Any]:
    """Returns the config keys the model called `name` sets.

    Raises:
        ConfigError: No such model; the message offers close matches.
    """
    if name in MODEL_SETTINGS:
        return MODEL_SETTINGS[name]
    close = difflib.get_close_matches(name.lower(), MODEL_SETTINGS, n=1, cutoff=0.4)
    raise ConfigError(
        f"no model `{name}`" + (f" (did you mean `{close[0]}`?)" if close else ""),
        hint=f"models: {' '.join(MODEL_SETTINGS)}",
    )
