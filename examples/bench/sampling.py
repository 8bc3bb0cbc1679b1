"""What the free gains of sampling cost in likeness, and what they save at full size.

    python examples/bench/sampling.py WEIGHTS DATA [--limit 6] [--steps 50]

WEIGHTS are of a model whose flow starts from noise (`examples/bench/distill.py` makes a small one,
OUT/teacher.safetensors); DATA is a prepared dataset with held-out assets. Each way is compared with
the plain sampler on the same noise: the error of the final latents and the Chamfer-L1 between the
two meshes, mean and worst over the assets. The passes of the full model are counted in PFLOP, of
the network that predicts velocities alone. `--quality` is set from this table.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from distill import NAME

from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import EvaluateConfig
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.diffusion.sampler import SOLVERS
from ultrashape_cli.evaluation.rows import coarse_of, held_out_assets
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.speed import PLAIN, Trial, compare_speed
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.flops import dit_flops
from ultrashape_cli.models.registry import MODELS, model_spec
from ultrashape_cli.models.sources import resolve_weights

FULL_TOKENS = 32_768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    MODELS[NAME] = replace(MODELS["tiny"], name=NAME, start="noise")
    MODEL_SETTINGS[NAME] = {**MODEL_SETTINGS["tiny"], "refine.strength": 1.0}
    device = torch.device("cpu")
    config = resolve(flags={"profile": "cpu", "device": "cpu"}, environ={}, model=NAME).config
    settings = replace(config.refine, tokens=768, grid_resolution=96)
    refiner = Refiner.load(resolve_weights(arguments.weights), settings, device)
    found: dict[str, list[Trial]] = defaultdict(list)
    plain: RefineConfig = replace(settings, **PLAIN, steps=arguments.steps, strength=1.0)
    options = dict(ways(plain))
    for asset in held_out_assets(arguments.data, "val", None, arguments.limit):
        mesh = coarse_of(asset, load_mesh(asset.truth), EvaluateConfig())
        assert asset.image is not None
        rgba = load_rgba(asset.image)
        prepared = refiner.prepare(mesh, 0)
        for trial in compare_speed(refiner, prepared, rgba, iter(options.items())):
            found[trial.name].append(trial)
        show(found, options)


def ways(plain: RefineConfig) -> Iterator[tuple[str, RefineConfig]]:
    """Yields the plain sampler and each gain, alone and together."""
    yield "plain: euler 49", plain
    middle = {"guidance_start": 0.1, "guidance_end": 0.8}
    late = {"guidance_start": 0.0, "guidance_end": 0.5}
    yield "guided in 0.1..0.8", replace(plain, **middle)
    yield "guided in 0..0.5", replace(plain, **late)
    yield "guidance every 2nd", replace(plain, guidance_reuse=2)
    yield "guidance every 4th", replace(plain, guidance_reuse=4)
    for solver, evaluations in (
        *(("euler", 24), ("ab2", 24), ("dpm", 24), ("heun", 24), ("midpoint", 24)),
        *(("euler", 12), ("ab2", 12), ("dpm", 12), ("heun", 12)),
        *(("ab2", 8), ("ab2", 6), ("dpm", 6), ("heun", 6)),
    ):
        steps = evaluations // SOLVERS[solver] + 1
        yield f"{solver} {evaluations}", replace(plain, solver=solver, steps=steps)
    for evaluations in (24, 12, 8, 6):
        base = replace(plain, solver="ab2", steps=evaluations + 1)
        yield f"ab2 {evaluations}, every 2nd", replace(base, guidance_reuse=2)
        yield f"ab2 {evaluations}, every 3rd", replace(base, guidance_reuse=3)
    yield "ab2 12, 0.1..0.8", replace(plain, solver="ab2", steps=13, **middle)


def full_size(config: RefineConfig) -> tuple[int, float]:
    """Returns passes with and without image of a way at full size, and their PFLOP."""
    spec = model_spec("ultrashape-1.0")
    context = spec.conditioner.tokens_of(spec.conditioner.image_size)
    with_image = dit_flops(spec.dit, FULL_TOKENS, context)
    without = dit_flops(spec.dit, FULL_TOKENS, 0)
    evaluations = (config.steps - 1) * SOLVERS[config.solver]
    times = np.repeat(np.linspace(0, 1, config.steps)[:-1], SOLVERS[config.solver])
    guided = int(((times >= config.guidance_start) & (times <= config.guidance_end)).sum())
    shared = -(-guided // config.guidance_reuse)
    return evaluations + shared, (evaluations * with_image + shared * without) / 1e15


def show(found: dict[str, list[Trial]], options: dict[str, RefineConfig]) -> None:
    count = len(next(iter(found.values())))
    print(f"\n{count} assets\n{'way':24} {'passes':>6} {'PFLOP':>6} {'share':>6} "
          f"{'latents':>8} {'worst':>7} {'Chamfer':>8} {'worst':>8} {'F@.01':>6}")  # fmt: skip
    whole = full_size(options[next(iter(found))])[1]
    for name, trials in found.items():
        passes, work = full_size(options[name])
        latents = [trial.latent_error for trial in trials]
        chamfer = [trial.chamfer_l1 for trial in trials]
        score = np.mean([trial.f_score for trial in trials])
        print(f"{name:24} {passes:6} {work:6.1f} {work / whole:6.0%} {np.mean(latents):8.2%} "
              f"{max(latents):7.2%} {np.mean(chamfer):8.5f} {max(chamfer):8.5f} {score:6.3f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
