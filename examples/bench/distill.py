"""What distilling gains: a small model whose flow starts from noise, and its students.

    python examples/bench/distill.py DATA OUT [--steps 3000] [--phase-steps 600] [--limit 24]

The packaged model takes one step as it is. This trains its DiT to start from noise, as the full
model does, distils it to 6 steps, and compares solvers and students at equal passes. DATA is a
prepared dataset with a list of held-out assets; everything is in OUT, and a repeated command goes
on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ultrashape_cli.cli import run
from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.models.convert import convert_weights, gather_weights
from ultrashape_cli.models.registry import MODELS
from ultrashape_cli.models.sources import packaged_weights

NAME = "tiny-from-noise"
COMMON = ["--profile", "cpu", "--device", "cpu", "--model", NAME]
LIGHT = {"train.num_latents": 512, "train.num_workers": 0, "train.validate_meshes": 0,
         "train.train_conditioner": "false", "train.validate_every_steps": 500,
         "train.latent_variants": 4, "train.token_cache": "true"}  # fmt: skip
COARSE = {"refine.tokens": 512, "refine.grid_resolution": 96, "evaluate.points": 20_000,
          "evaluate.earth_movers_points": 0, "evaluate.views": 0}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--phase-steps", type=int, default=600)
    parser.add_argument("--limit", type=int, default=24)
    arguments = parser.parse_args()
    MODELS[NAME] = replace(MODELS["tiny"], name=NAME, start="noise")
    MODEL_SETTINGS[NAME] = {**MODEL_SETTINGS["tiny"], "refine.strength": 1.0}
    out = arguments.out
    packaged, first = packaged_weights("tiny"), out / "first.safetensors"
    assert packaged is not None
    if not first.exists():
        out.mkdir(parents=True, exist_ok=True)
        convert_weights(gather_weights(packaged), MODELS[NAME], first)
    data = ["--data", arguments.data]
    call("train", *COMMON, *data, "--init", first, "--steps", arguments.steps, "--out",
         out / "teacher", *settings(LIGHT), "--set", "train.ema_decay=0.998",
         "--strategy", "full")  # fmt: skip
    teacher = out / "teacher.safetensors"
    if not teacher.exists():
        convert_weights(gather_weights(out / "teacher", averaged=True), MODELS[NAME], teacher)
    call("distill", *COMMON, *data, "--init", teacher, "--steps", arguments.phase_steps,
         "--out", out / "students", *settings(LIGHT), "--set", "train.ema_decay=0.99")  # fmt: skip
    students = [out / "students" / f"{name}.safetensors" for name in ("guidance", "12", "student")]
    against = [word for path in (teacher, *students[:-1]) for word in ("--against", path)]
    call("evaluate", "--checkpoint", students[-1], *against, *data, "--curve", "--limit",
         arguments.limit, "--profile", "cpu", "--device", "cpu", "-o", out / "curve",
         *settings(COARSE))  # fmt: skip


def settings(values: dict[str, object]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def call(*arguments: object) -> None:
    if code := run([str(argument) for argument in arguments]):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
