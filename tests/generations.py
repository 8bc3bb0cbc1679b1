"""Kept generations without a network that made them."""

from __future__ import annotations

from pathlib import Path

import torch

from ultrashape_cli.rewards.generations import Generation, Judged, KeptGenerations

QUICK = [
    *("--set", "refine.steps=3", "--set", "refine.grid_resolution=24"),
    *("--set", "refine.tokens=16", "--set", "refine.surface_points=2000"),
    *("--profile", "cpu", "--device", "cpu"),
]
"""Options of `ushape evaluate` for a generation within a second."""


def keep_balls(root: Path, *, assets: int = 4, count: int = 4, model: str = "small") -> Path:
    """Write generations of the assets of `ball_data` whose `chamfer` is their mean square, negated.

    The last asset's are all alike, so that none of them is to be learned from.
    """
    kept = KeptGenerations(root)
    kept.begin({"model": model, "count": count, "rewards": ["chamfer", "components"]})
    draw = torch.Generator().manual_seed(0)
    for index in range(assets):
        made = []
        for number in range(count):
            scale = 1.0 if index == assets - 1 else 0.5 + 0.3 * number
            latents = scale * torch.randn(16 - index, 8, generator=draw)
            values = {"chamfer": -scale, "components": 0.0}
            voxels = torch.randint(16, (16 - index, 3), generator=draw)
            made.append(Judged(number, Generation(latents, voxels), values))
        image = torch.full((32, 32, 4), 255, dtype=torch.uint8)
        image[..., :3] = 60 + 40 * index
        kept.write(f"ball-{index}", image, (0.0, 0.0), made, {})
    return root
