"""What learning from rewards gains on the packaged model, and what it would cost at full size.

    python examples/bench/rewards.py OUT [--assets 54] [--held-out 24] [--keep 8]
        [--reject-steps 1000] [--dpo-steps 400] [--groups 96]
    python examples/bench/rewards.py --cost

Makes shapes that the packaged model has not seen, trains it on five of nine by rejection, by
preferences and by policy gradients, and refines the others with each, and with the best of four
seeds. Prints how many results have the topology of their truth, Chamfer-L1 and normals with 95 %
intervals, and the CPU seconds that each took to learn, which the default steps make about equal.
A repeated command goes on. --cost counts a group of the full model.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from distill import call, settings

from ultrashape_cli.config.profiles import get_profile
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import EvaluateConfig, RefineConfig
from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.errors import MeshError
from ultrashape_cli.evaluation.rows import Asset, coarse_of, held_out_assets
from ultrashape_cli.evaluation.statistics import Estimate, compare, estimate
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.candidates import best_of, evaluate_all
from ultrashape_cli.inference.decode import expected_queries
from ultrashape_cli.inference.prepared import add_views
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.view_files import seen_from
from ultrashape_cli.inference.views import View
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.flops import dit_flops, vae_flops
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import find_weights
from ultrashape_cli.rewards.table import Evidence, Values, measure
from ultrashape_cli.synthetic.families import FAMILIES, make_shape

UNSEEN = 5000
"""First seed; those of the packaged model are below 2000."""
LIGHT = ["--profile", "cpu", "--device", "cpu"]
REWARDS = "train.rewards=chamfer:1,components:0.5,genus:0.5"
TRAIN = {"train.num_latents": 256, "train.num_workers": 0, "train.validate_every_steps": 0,
         "train.strategy": "lora", "train.lora_rank": 8, "train.microbatch": 4}  # fmt: skip
NOISE = 0.25
"""Of generations, in units of the latents: a flow from the coarse mesh has none of its own. At 0.6
half of what decides is the noise itself: loose parts, which the network does not make."""
QUICK = {"tokens": 256, "grid_resolution": 64, "surface_points": 20_000, "steps": 5}
MEASURED = ("components", "genus", "open_edges", "chamfer", "normals", "silhouette")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--assets", type=int, default=54)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--keep", type=int, default=8)
    parser.add_argument("--reject-steps", type=int, default=1000)
    parser.add_argument("--dpo-steps", type=int, default=400)
    parser.add_argument("--groups", type=int, default=96)
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    if arguments.cost:
        print_cost()
        return
    if arguments.out is None:
        parser.error("OUT, or --cost")
    out, seconds = arguments.out, Seconds(arguments.out / "seconds.json")
    data = make_data(out, arguments.assets)
    common = ["train", *LIGHT, "--model", "tiny", "--data", data, "--set", REWARDS]
    kept = ["evaluate", *LIGHT, "--model", "tiny", "--data", data, "--split", "train",
            "--keep", arguments.keep, "-o", out / "kept",
            *settings({f"refine.{key}": value for key, value in QUICK.items()}),
            "--set", f"evaluate.keep_noise={NOISE}"]  # fmt: skip
    seconds.of("keep", lambda: call(*kept))
    for name, steps in (("reject", arguments.reject_steps), ("dpo", arguments.dpo_steps)):
        given = {**TRAIN, "train.learning_rate": 1e-4, "train.steps": steps}
        command = [*common, "--objective", name, "--pairs", out / "kept", "--out", out / name]
        seconds.of(name, lambda: call(*command, *settings(given)))  # noqa: B023
    # So few steps need large ones.
    given = {**TRAIN, "train.learning_rate": 1e-3, "train.steps": arguments.groups // 4,
             "reward.noise": NOISE, "reward.resolution": QUICK["grid_resolution"]}  # fmt: skip
    command = [*common, "--objective", "grpo", "--out", out / "grpo", *settings(given)]
    seconds.of("grpo", lambda: call(*command))
    print_table(out, data, seconds.known, arguments.held_out)


class Seconds:
    """CPU time of parts, kept in a file so that a repeated command still knows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, float] = read_json(file) or {}

    def of(self, name: str, work: Callable[[], object]) -> None:
        if name in self.known:
            return
        started = time.process_time()
        work()
        self.known[name] = time.process_time() - started
        write_json(self.file, self.known)


def make_data(out: Path, count: int) -> Path:
    """Returns a prepared dataset of unseen shapes, four of nine of them held out."""
    shapes, data = out / "shapes", out / "data"
    for seed in range(UNSEEN, UNSEEN + count):
        family = list(FAMILIES)[seed % len(FAMILIES)]
        path = shapes / f"{family}_{seed}.ply"
        if not path.exists():
            save_mesh(make_shape(family, seed, 96), path)
    config = Path(__file__).parent.parent / "tiny/data.toml"
    if not (data / "data_list/val.json").exists():
        call("prepare", shapes, "-o", data, "--config", config, "--workers", 2)
        call("split", data, "--val", 0.56)
    return data


def print_table(out: Path, data: Path, seconds: dict[str, float], count: int) -> None:
    resolved = resolve(model="tiny", environ={}).config
    refine = replace(resolved.refine, **QUICK, frame="normalised")  # type: ignore[arg-type]
    assets = held_out_assets(data, "val", None, count)
    guided = dict.fromkeys(("base", "reject", "dpo"), refine)
    # Policy gradients sample without guidance, and so do their base and their result.
    bare = replace(refine, guidance_scale=0.0)
    ways = {**guided, "best of 4": replace(refine, best_of=4), "base, no guidance": bare,
            "grpo": bare}  # fmt: skip
    rows = {name: measured(out, name, way, assets, resolved.evaluate)
            for name, way in ways.items()}  # fmt: skip
    learned = {"reject": seconds["keep"] + seconds["reject"],
               "dpo": seconds["keep"] + seconds["dpo"], "grpo": seconds["grpo"]}  # fmt: skip
    print(f"{len(assets)} held-out shapes; differences to the base with the same guidance")
    print("| | topology right | Chamfer-L1 | difference | normals | difference | CPU s to learn |")
    print("|---|---|---|---|---|---|---|")
    for name, found in rows.items():
        base = rows["base, no guidance" if ways[name] is bare else "base"]
        both = [index for index, values in enumerate(found) if values and base[index]]
        cells = [share([right(values) for values in found])]
        for reward, to_figure in (("chamfer", chamfer_of), ("normals", float)):
            ours, theirs = ([to_figure(row[i][reward]) for i in both] for row in (found, base))
            cells += [text(estimate(ours))]
            gap = compare(ours, theirs, sign=1)
            told = f"{text(gap.difference, '+')} (p {gap.p_value or 0:.2g})"
            cells += ["-" if found is base else told]
        print(f"| {name} | {' | '.join(cells)} | {learned.get(name, 0):.0f} |")


def measured(
    out: Path, name: str, refine: RefineConfig, assets: Sequence[Asset], settings: EvaluateConfig
) -> list[Values | None]:
    """Returns what results are worth, by asset; made once."""
    file = out / f"measured-{name}.json"
    if (known := read_json(file)) is not None:
        return list(known)
    run_folder = out / name
    source = find_weights(run_folder, None) if run_folder.is_dir() else find_weights(None, "tiny")
    refiner = Refiner.load(source, refine, torch.device("cpu"))
    found: list[Values | None] = []
    for asset in assets:
        truth = load_mesh(asset.truth)
        assert asset.image is not None
        rgba = load_rgba(asset.image)
        view = View(asset.image, rgba, *seen_from(asset.image))
        mesh = result(refiner, coarse_of(asset, truth, settings), view)
        evidence = Evidence(truth=truth, points=32_768)
        names = [n for n in MEASURED if n != "silhouette"]
        found.append(None if mesh is None else measure(mesh, names, evidence))
    write_json(file, found)
    return found


def result(refiner: Refiner, coarse: Mesh, view: View) -> Mesh | None:
    try:
        prepared = refiner.prepare(coarse, 0)
        add_views(prepared, [view], refiner.spec, refiner.config)
        return best_of(refiner, evaluate_all(refiner, prepared)).refined.mesh
    except MeshError:  # the field has no surface: a result, and a bad one
        return None


def right(values: Values | None) -> float:
    """Says whether parts and handles are the truth's and nothing is open."""
    return float(values is not None and all(values[n] == 0 for n in MEASURED[:3]))


def chamfer_of(reward: float) -> float:
    return float(torch.tensor(-reward).exp())


def share(values: Sequence[float]) -> str:
    found = estimate(values)
    mean, low, high = (100 * (value or 0.0) for value in (found.mean, found.low, found.high))
    return f"{mean:.0f} % ({low:.0f} to {high:.0f})"


def text(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.4f} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"


def print_cost() -> None:
    """Prints the arithmetic of a group of the full model with adapters, as `reward` has it."""
    config = resolve(flags={"train.objective": "grpo"}, environ={}).config
    spec, reward, tokens = model_spec("ultrashape-1.0"), config.reward, config.train.num_latents
    passed = dit_flops(spec.dit, tokens, spec.conditioner.tokens_of(spec.conditioner.image_size))
    alone = (reward.rollout_steps - reward.window) / 2
    sampled = (alone + (reward.rollout_steps - alone) * reward.group) * passed
    # Forward once more, and as much again for gradients that stop at adapters; and blocks are
    # computed once more in the backward pass.
    learned = 3 * reward.group * reward.window * passed
    queries = expected_queries(reward.resolution, spec.vae.truncation)
    decoded = vae_flops(spec.vae, 0, tokens, queries) * reward.group
    parts = {"sampling": sampled, "learning": learned, "decoding": decoded}
    total = sum(parts.values())
    print(f"{tokens} tokens, a group of {reward.group}, {reward.rollout_steps} steps,")
    print(f"window {reward.window}, {queries:,} queries of a ball at {reward.resolution} cells")
    print(", ".join(f"{name} {flops / 1e15:.2f} PFLOP" for name, flops in parts.items()))
    for name in ("a40", "h100"):
        profile = get_profile(name)
        seconds = total / (profile.peak_bf16_tflops * 1e12 * profile.product_share)
        hours = 500 * seconds / 3600
        print(f"{name}: {seconds:.0f} s a group, {hours:.1f} h for 500 groups, beside judging")


if __name__ == "__main__":
    main()
