"""Speed and memory of the model code: `python examples/bench/model.py [--full-load]`.

Prints the DiT against a textbook implementation, the bookkeeping of hierarchical decoding, and on
a CUDA device a full-size block with every attention backend. `--full-load` also writes and reads
back full-size weights of 7.4 GB below `--folder`, and deletes them.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import textbook
import torch

from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.inference.decode import decode_field, reference_level_cells
from ultrashape_cli.models.attention import set_attention_backend
from ultrashape_cli.models.attention_choice import CANDIDATES, is_native
from ultrashape_cli.models.dit import DiTBlock, DiTParams, RefineDiT
from ultrashape_cli.models.embeddings import rope_3d, rotation
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import load_networks, resolve_weights
from ultrashape_cli.models.weights import write_reference_bundle, write_safetensors

SIZES = {
    "tiny": (model_spec("tiny").dit, 512, 65),
    "mid": (
        DiTParams(
            in_channels=64, width=512, context_channels=256, depth=7, num_heads=4,
            num_moe_layers=2, num_experts=8,
        ),
        1024,
        257,
    ),
}  # fmt: skip


def peak_mib() -> float:
    """Return the highest resident memory of this process so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


@torch.no_grad()
def bench_forward(repeats: int) -> None:
    rows = []
    for name, (params, tokens, context) in SIZES.items():
        torch.manual_seed(0)
        dit = RefineDiT(params).eval()
        layers = dict(dit.named_modules())
        inputs = (
            torch.randn(1, tokens, params.in_channels),
            torch.tensor([0.3]),
            torch.randn(1, context, params.context_channels),
            torch.randint(params.voxel_resolution, (1, tokens, 3)),
        )
        runs: tuple[Callable[[], torch.Tensor], ...] = (
            lambda dit=dit, inputs=inputs: dit(*inputs).velocity,
            lambda w=layers, p=params, inputs=inputs: textbook.forward(w, p, *inputs),
        )
        error = (runs[0]() - runs[1]()).abs().max().item()
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(2 * repeats):
            # Taking turns to go first: the second finds the inputs in the cache.
            which = number % 2
            for index in (which, 1 - which):
                started = time.perf_counter()
                runs[index]()
                seconds[index].append(time.perf_counter() - started)
        ours, plain = (1e3 * statistics.median(kept) for kept in seconds)
        rows.append(
            (name, tokens, f"{ours:.1f}", f"{plain:.1f}", f"{ours / plain:.3f}", f"{error:.0e}")
        )
    print_table(
        f"DiT forward on the CPU, fp32, {torch.get_num_threads()} thread(s), "
        f"median of {2 * repeats}",
        ("size", "tokens", "ours ms", "textbook ms", "ratio", "largest difference"),
        rows,
    )


def decode_child(resolution: int) -> dict[str, float]:
    """Decode an analytic ball in this process and return seconds and peak memory."""

    def field(points: torch.Tensor) -> torch.Tensor:
        return ((0.7 - points.norm(dim=1)) / 0.01).clamp(-1, 1)

    extract_isosurface(decode_field(field, 32, cells=[32]), inside="positive")  # compiles
    before = psutil.Process().memory_info().rss / 2**20
    started = time.perf_counter()
    grid = decode_field(field, resolution, cells=reference_level_cells(resolution))
    decoded = time.perf_counter()
    _, faces = extract_isosurface(grid, inside="positive")
    return {
        "cells": grid.num_cells,
        "nodes": int((grid.values == grid.values).sum()),
        "faces": len(faces),
        "decode": decoded - started,
        "extract": time.perf_counter() - decoded,
        "peak": peak_mib() - before,
    }


def child(*arguments: object) -> dict[str, float]:
    """Run this file in a process of its own: peak memory never falls."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def bench_decode() -> None:
    rows = []
    for resolution in (512, 1024):
        r = child("--child", "decode", resolution)
        rows.append((
            int(r["cells"]), f"{r['nodes'] / 1e6:.1f} M", f"{r['faces'] / 1e6:.1f} M",
            f"{r['decode']:.2f}", f"{r['extract']:.2f}", f"{r['peak']:.0f}",
        ))  # fmt: skip
    print_table(
        "Hierarchical decoding of an analytic ball, bookkeeping only",
        ("cells", "nodes", "faces", "decode s", "isosurface s", "peak MiB"),
        rows,
    )


def write_child(path: Path) -> dict[str, float]:
    """Write full-size weights of zeros, each tensor a view of one number."""
    networks = build(model_spec("ultrashape-1.0"))._asdict()
    zero = torch.zeros((), dtype=torch.float16)
    parts = {
        name: {key: zero.expand(value.shape) for key, value in module.state_dict().items()}
        for name, module in networks.items()
    }
    before, started = peak_mib(), time.perf_counter()
    write_safetensors(path, parts, {"model": "ultrashape-1.0"})
    return {"seconds": time.perf_counter() - started, "peak": peak_mib() - before}


def load_child(path: Path, copy: str) -> dict[str, float]:
    """Load full-size weights, read every number, and write them again."""
    before, started = peak_mib(), time.perf_counter()
    networks = load_networks(resolve_weights(path), dtype=None)
    loaded = time.perf_counter()
    for network in networks:
        assert network is not None
        for parameter in network.parameters():
            assert not parameter.any()
    touched, peak = time.perf_counter(), peak_mib() - before
    write = write_safetensors if copy.endswith(".safetensors") else write_reference_bundle
    write(Path(copy), networks._asdict())
    return {
        "load": loaded - started,
        "touch": touched - loaded,
        "peak": peak,
        "write": time.perf_counter() - touched,
        "peak_all": peak_mib() - before,
    }


def bench_full_load(parent: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ushape-bench-", dir=parent))
    rows = []
    try:
        source = folder / "full.safetensors"
        written = child("--child", "write", source)
        size = source.stat().st_size / 2**20

        def row(what: str, seconds: float, peak: float) -> None:
            rows.append((what, f"{seconds:.1f}", f"{peak:.0f}", f"{peak / size:.3f}"))

        row("write safetensors, tensor by tensor", written["seconds"], written["peak"])
        for path, copy in ((source, "copy.pt"), (folder / "copy.pt", "copy.safetensors")):
            r = child("--child", "load", path, folder / copy)
            row(f"load {path.suffix} (meta device, assign)", r["load"], r["peak"])
            row("... and read every weight", r["touch"], r["peak"])
            row(f"... and write {copy}", r["write"], r["peak_all"])
            path.unlink()
    finally:
        shutil.rmtree(folder)
    print_table(
        f"Full-size weights, fp16, {size / 1024:.2f} GiB; peak counts the mapped file",
        ("step", "seconds", "peak MiB", "peak / file"),
        rows,
    )


def block_flops(params: DiTParams, tokens: int, context: int, routed: bool) -> float:
    """Return the floating-point operations of one block forward without a skip."""
    width = params.width
    used = params.moe_top_k + 1 if routed else 1
    weights = 4 * width**2 + 2 * width**2 + used * 8 * width**2
    keys = 2 * context * params.context_channels * width
    return 2 * (tokens * weights + keys) + 4 * tokens * (tokens + context) * width


def bench_cuda(repeats: int) -> None:
    params, context = model_spec("ultrashape-1.0").dit, 2048
    rows = []
    for routed in (False, True):
        block = DiTBlock(params, skip=False, routed=routed).to("cuda", torch.bfloat16)
        for tokens in (8192, 32768):
            x = torch.randn(1, tokens + 1, params.width, device="cuda", dtype=torch.bfloat16)
            extra = torch.randn(
                1, context, params.context_channels, device="cuda", dtype=torch.bfloat16
            )
            voxels = torch.randint(128, (1, tokens + 1, 3), device="cuda")
            rope = rotation(*rope_3d(voxels, params.width // params.num_heads))
            flops = block_flops(params, tokens + 1, context, routed)
            for backend in CANDIDATES:
                if not is_native(backend, "cuda", torch.bfloat16):
                    continue
                set_attention_backend(block, backend)
                try:
                    ms = time_block(block, (x, None, rope, extra, None), repeats)
                except Exception as error:
                    print(f"{backend}: {type(error).__name__}: {error}", file=sys.stderr)
                    continue
                rates = [f * flops / t / 1e9 for f, t in zip((1, 3), ms, strict=True)]
                cells = [f"{t:.2f} ({r:.0f})" for t, r in zip(ms, rates, strict=True)]
                rows.append(("routed" if routed else "dense", tokens, backend, *cells))
    print_table(
        f"Full-size block on {torch.cuda.get_device_name()}, bf16, median of {repeats}: "
        "ms (TFLOP/s)",
        ("block", "tokens", "attention", "forward", "forward + backward"),
        rows,
    )


def time_block(block: DiTBlock, inputs: tuple, repeats: int) -> tuple[float, float]:
    """Return the milliseconds of a forward without and of one with its backward."""

    def forward() -> None:
        with torch.no_grad():
            block(*inputs)

    def both() -> None:
        block.zero_grad()
        out, loss, _ = block(inputs[0].detach().requires_grad_(), *inputs[1:])
        (out.float().square().mean() + (0 if loss is None else loss)).backward()

    result = []
    for run in (forward, both):
        run()
        run()
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        result.append(statistics.median(times))
    return result[0], result[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--full-load", action="store_true", help="7.4 GB written three times")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, *rest = arguments.child
        children: dict[str, Callable[..., dict[str, float]]] = {
            "decode": lambda cells: decode_child(int(cells)),
            "write": lambda path: write_child(Path(path)),
            "load": lambda path, copy: load_child(Path(path), copy),
        }
        print(json.dumps(children[kind](*rest)))
        return
    bench_forward(arguments.repeats)
    bench_decode()
    if arguments.full_load:
        bench_full_load(arguments.folder)
    if torch.cuda.is_available():
        bench_cuda(arguments.repeats)


if __name__ == "__main__":
    main()
