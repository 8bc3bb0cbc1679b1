"""Everything of a refinement but the networks: `python examples/bench/refine.py [--cells 1024]`.

An analytic field, a dented ball with small crumbs around it, stands in for the networks. Prints
wall and CPU seconds of each stage, without those of the field itself, and the peak memory of the
process; where other processes share the cores, CPU seconds are those that count.
On a CUDA device `--full` also runs the full-size networks with random weights: seconds and peak
memory of each stage in every memory mode under caps of 24, 16 and 12 GiB.
"""

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ultrashape_cli.config.choices import Quality
from ultrashape_cli.config.models import quality_settings
from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.candidates import Chosen
from ultrashape_cli.inference.job import Job, prepare_inputs, read_inputs, write_outputs
from ultrashape_cli.inference.memory import MODES, plan_refinement
from ultrashape_cli.inference.prepared import prepare_mesh
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.streaming import quantise_dit
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.registry import Networks, build, model_spec
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.figurines import make_figurine

TRUNCATION = 0.01
FULL = model_spec("ultrashape-1.0")


def now() -> np.ndarray:
    """Return wall and CPU seconds [2]."""
    return np.array([time.perf_counter(), time.process_time()])


class AnalyticVAE:
    """Stands in for the decoder; keeps the wall and CPU seconds its field has taken."""

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self.seconds = np.zeros(2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def field(self, features: torch.Tensor):
        crumbs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        crumbs = crumbs / crumbs.norm(dim=1, keepdim=True) * 0.85

        def ask(points: torch.Tensor) -> torch.Tensor:
            started = now()
            dents = 0.01 * torch.sin(40 * points).prod(1)
            ball = self.radius + dents - points.norm(dim=1)
            small = 0.012 - torch.cdist(points, crumbs).amin(1)
            found = (torch.maximum(ball, small) / TRUNCATION).clamp(-1, 1)
            self.seconds += now() - started
            return found

        return ask


def bench_bookkeeping(cells: int, radius: float, preview: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ushape-bench-"))
    save_mesh(coarsen(make_figurine(0)), folder / "coarse.glb")
    pixels = np.zeros((1024, 1024, 4), np.uint8)
    pixels[100:900, 200:800] = 160
    Image.fromarray(pixels).save(folder / "image.png")
    job = Job(
        name="bench",
        mesh=folder / "coarse.glb",
        image=folder / "image.png",
        target=folder / "out.glb",
        seed=0,
        preview=folder / "out.png" if preview else None,
    )
    config = RefineConfig(grid_resolution=cells)
    # Kernels are compiled once per machine, not once per mesh.
    run(job, replace(config, grid_resolution=64), radius)
    seconds, faces = run(job, config, radius)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{cells} cells, {faces:,} faces, {torch.get_num_threads()} thread(s), {peak:.2f} GiB")
    field = seconds.pop("field")
    for name, value in {**seconds, "total": sum(seconds.values()), "(field)": field}.items():
        print(f"{name:>12} {value[0]:7.2f} s wall {value[1]:7.2f} s CPU")


def run(job: Job, config: RefineConfig, radius: float) -> tuple[dict[str, np.ndarray], int]:
    seconds: dict[str, np.ndarray] = {}

    def lap(name: str, since: np.ndarray) -> np.ndarray:
        seconds[name] = now() - since
        return now()

    vae = AnalyticVAE(radius)
    cpu = torch.device("cpu")
    refiner = Refiner(Networks(vae, None, None), FULL, config, cpu)  # type: ignore[arg-type]
    start = now()
    inputs = read_inputs(job, config)
    start = lap("read, gate", start)
    prepared = prepare_inputs(job, inputs, FULL, config)
    start = lap("voxels", start)
    with torch.inference_mode():
        grid = refiner.decode(torch.zeros(1, 1, 64), lambda *a: None)
    start = lap("decode", start)
    seconds["decode"] -= vae.seconds
    refined = refiner.finish(prepared, grid)
    start = lap("mesh", start)
    recipe = {"settings": {"frame": "input", "accept_only_better": False}}
    write_outputs(job, inputs, Chosen(prepared, refined), recipe, cpu)
    lap("write", start)
    return {**seconds, "field": vae.seconds}, len(refined.mesh.faces)


def bench_full(tokens: int) -> None:
    """Run full-size random networks on the GPU in every mode and under every cap."""
    cuda = torch.device("cuda")
    total = torch.cuda.mem_get_info()[1]
    settings = resolve(environ={}, model="ultrashape-1.0").config.refine
    for cap in (24, 16, 12):
        torch.cuda.set_per_process_memory_fraction(min(cap * 2**30 / total, 1.0))
        for mode in MODES:
            config = replace(settings, dtype="bf16", memory=mode, tokens=tokens)
            plan = plan_refinement(FULL, config, cuda, tokens, budget=cap * 2**30)
            if not plan.fits:
                print(f"{cap} GiB, {mode}: needs {plan.needed / 2**30:.1f} GiB, left out")
                continue
            qualities: tuple[Quality, ...] = ("max", "standard")
            for quality in qualities:
                run_full(replace(config, chunk_size=plan.chunk_size), quality, cap, plan.needed)


def run_full(config: RefineConfig, quality: Quality, cap: int, planned: int) -> None:
    preset = quality_settings("ultrashape-1.0", quality).items()
    config = replace(config, **{key.removeprefix("refine."): value for key, value in preset})
    device = torch.device("cuda")
    home = device if config.memory == "resident" else torch.device("cpu")
    torch.manual_seed(0)
    networks = build(FULL, device="cpu", vae_parts=("decoder",))
    for network in networks:
        network.to(home, torch.bfloat16).eval().requires_grad_(False)
    if config.memory == "int8":
        quantise_dit(networks.dit)
    refiner = Refiner(networks, FULL, config, device)
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(2_000_000, 3))
    cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
    ball = Mesh(cloud[:30000], rng.integers(0, 30000, (60000, 3)))
    prepared = prepare_mesh(ball, 0, FULL, config)
    rgba = np.full((1024, 1024, 4), 160, np.uint8)
    torch.cuda.reset_peak_memory_stats()
    seconds = {}
    with torch.inference_mode():
        for name in ("condition", "sample"):
            torch.cuda.synchronize()
            started = time.perf_counter()
            if name == "condition":
                context, lengths = refiner.condition(rgba)
            else:
                refiner.sample(prepared.voxels, context, lengths, 0, lambda *a: None)
            torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - started
    peak = torch.cuda.max_memory_reserved() / 2**30
    print(
        f"{cap} GiB, {config.memory}, {quality}: {prepared.voxels.shape[1]} tokens, "
        f"{refiner.passes} passes, peak {peak:.1f} GiB (planned {planned / 2**30:.1f}), "
        + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1024)
    parser.add_argument("--radius", type=float, default=0.32)
    parser.add_argument("--preview", action="store_true")
    parser.add_argument("--full", action="store_true", help="needs a CUDA device")
    parser.add_argument("--tokens", type=int, default=32_768)
    arguments = parser.parse_args()
    bench_bookkeeping(arguments.cells, arguments.radius, arguments.preview)
    if arguments.full and torch.cuda.is_available():
        bench_full(arguments.tokens)


if __name__ == "__main__":
    main()
