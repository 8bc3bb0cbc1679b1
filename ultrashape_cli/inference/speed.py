"""How far the faster ways to sample are from the plain one: velocities, and the meshes they give.

The plain one is the reference's: Euler steps, guidance in every step, nothing reused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.config.choices import Solver
from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.devices import synchronise
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.inference.cleanup import clean, surface_mesh
from ultrashape_cli.inference.prepared import Prepared
from ultrashape_cli.inference.refiner import Refiner

PLAIN: dict[str, Any] = {
    "solver": "euler",
    "guidance_start": 0.0,
    "guidance_end": 1.0,
    "guidance_reuse": 1,
    "guidance_batch": False,
    "cache_context": False,
    "compile": False,
}
"""Settings of the plain sampler; its steps are those of the model's `max` preset."""
METRIC_POINTS = 100_000
TAU = 0.01
"""Distance of the F-score, of a cube with sides of 2."""


@dataclass(slots=True)
class Trial:
    """One way to sample, against the plain one."""

    name: str
    steps: int
    passes: int
    """Passes through the network."""
    seconds: float
    """Sampling alone."""
    velocity_errors: list[float]
    """Of each step: error of its mean velocity, relative to that of the plain path there."""
    latent_error: float
    """Of the final latents, relative to the plain ones."""
    chamfer_l1: float = 0.0
    """Mean distance between samples of the surfaces, in the cube [-1, 1]."""
    f_score: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values."""
        errors = self.velocity_errors
        return {
            "name": self.name,
            "steps": self.steps,
            "passes": self.passes,
            "seconds": round(self.seconds, 3),
            "velocity_error_mean": float(np.mean(errors)) if errors else 0.0,
            "velocity_error_max": max(errors, default=0.0),
            "velocity_errors": [round(error, 6) for error in errors],
            "latent_error": self.latent_error,
            "chamfer_l1": self.chamfer_l1,
            f"f_score@{TAU:g}": self.f_score,
        }


class Path:
    """States of one sampling run, as a function of t: straight between its steps."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.states: list[Tensor] = []

    def at(self, t: float) -> Tensor:
        """Returns the state at t."""
        index = int(np.clip(np.searchsorted(self.times, t, "right") - 1, 0, len(self.times) - 2))
        start, end = self.times[index], self.times[index + 1]
        share = (t - start) / (end - start)
        return torch.lerp(self.states[index], self.states[index + 1], share)

    def step_errors(self, plain: Path) -> list[float]:
        """Returns the relative error of the mean velocity of each step."""
        errors = []
        for k in range(len(self.times) - 1):
            start, end = self.times[k], self.times[k + 1]
            ours = (self.states[k + 1] - self.states[k]) / (end - start)
            theirs = (plain.at(end) - plain.at(start)) / (end - start)
            errors.append(relative_error(ours, theirs))
        return errors


def variants(config: RefineConfig, plain_steps: int) -> Iterator[tuple[str, RefineConfig]]:
    """Yields the plain settings, each speed option added to them alone, and the user's own."""
    plain = replace(config, **PLAIN, steps=plain_steps)
    half, quarter = max(plain_steps // 2, 3), max(plain_steps // 4, 3)
    yield "plain", plain
    yield "cached context", replace(plain, cache_context=True)
    yield "both halves in one", replace(plain, guidance_batch=True)
    yield "guided in 0.1..0.8", replace(plain, guidance_start=0.1, guidance_end=0.8)
    yield "guidance reused", replace(plain, guidance_reuse=2)
    one: tuple[Solver, ...] = ("euler", "ab2", "dpm")
    two: tuple[Solver, ...] = ("heun", "midpoint")
    for solver in one:
        yield f"{solver}, half", replace(plain, solver=solver, steps=half)
    for solver in two:
        yield f"{solver}, quarter", replace(plain, solver=solver, steps=quarter)
    yield f"as set ({config.quality})", config


def compare_speed(
    refiner: Refiner,
    prepared: Prepared,
    rgba: np.ndarray | None,
    ways: Iterator[tuple[str, RefineConfig]],
) -> Iterator[Trial]:
    """Yields each way to sample, measured against the first.

    Args:
        refiner: Its networks sample every way; memory and device stay.
        prepared: The coarse mesh.
        rgba: Reference image [H, W, 4].
        ways: Names and settings, the plain ones first.
    """
    plain_path: Path | None = None
    plain_mesh: Mesh | None = None
    with torch.inference_mode():
        context, lengths = refiner.condition(rgba)
        for name, config in ways:
            own = refiner.with_config(
                replace(config, memory=refiner.config.memory, chunk_size=refiner.config.chunk_size)
            )
            path, trial = _trial(own, prepared, context, lengths, name)
            mesh = clean(surface_mesh(own.decode(path.states[-1], lambda *a: None)), config).mesh
            if plain_path is None or plain_mesh is None:
                plain_path, plain_mesh = path, mesh
            trial.velocity_errors = path.step_errors(plain_path)
            trial.latent_error = relative_error(path.states[-1], plain_path.states[-1])
            # The plain surface against itself shows what two sets of samples differ by.
            found = compare_meshes(mesh, plain_mesh, METRIC_POINTS, taus=(TAU,))
            trial.chamfer_l1, trial.f_score = found["chamfer_l1"], found[f"f_score@{TAU:g}"]
            yield trial


def _trial(
    refiner: Refiner,
    prepared: Prepared,
    context: Tensor | None,
    lengths: list[int] | None,
    name: str,
) -> tuple[Path, Trial]:
    path = Path()

    def on_step(time_: float, x: Tensor) -> None:
        path.times.append(time_)
        path.states.append(x)

    started = time.perf_counter()
    inputs = (prepared.voxels, refiner.start(prepared), context, lengths, lambda *a: None)
    found = refiner.sample(*inputs, on_step=on_step)
    synchronise(found.device)
    seconds = time.perf_counter() - started
    return path, Trial(name, refiner.config.steps, refiner.passes, seconds, [], 0.0)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Returns the norm of the difference over that of `theirs`; of twice nothing that is 0."""
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))
