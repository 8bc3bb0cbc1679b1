"""How far a refinement is, over all of its stages."""

from __future__ import annotations

from collections.abc import Sequence

from ultrashape_cli.config.refine import RefineConfig

_DECODE, _MESH, _WRITE = 20.0, 2.0, 1.0
"""Time of the stages after the sampler, in passes through the DiT. Measured with the tiny model."""
_ASKS_TWICE = ("heun", "midpoint")


class Whole:
    """Turns the progress of a stage into that of the whole.

    Args:
        config: Settings of the refinement.
        levels: From `Refiner.levels`.
    """

    def __init__(self, config: RefineConfig, levels: Sequence[int]) -> None:
        passes = (config.steps - 1) * (2 if config.solver in _ASKS_TWICE else 1)
        passes *= 2 if config.guidance_scale > 0 else 1
        # The points near a surface grow with the square of the cells.
        nodes = [cells**2 for cells in levels]
        decode = {f"decode {n}": _DECODE * size / sum(nodes) for n, size in enumerate(nodes)}
        self._sizes = {"sample": float(passes), **decode, "mesh": _MESH, "write": _WRITE}

    def percent(self, stage: str, done: int, total: int) -> int:
        """Returns how much of the whole is done, from 0 to 100, when `done` of a stage is."""
        before = 0.0
        for name, size in self._sizes.items():
            if name == stage:
                before += size * done / max(total, 1)
                break
            before += size
        return int(100 * before / sum(self._sizes.values()))
