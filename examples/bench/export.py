"""Seconds and errors of the backends: `python examples/bench/export.py [--rounds 7]`.

One velocity of the DiT with an image, and one chunk of field queries, by torch, by onnxruntime and
by the package that AOTInductor compiles for this machine, at several token counts. Backends take
turns, so that what else the machine does slows all of them alike; the least of all rounds counts.
On a machine with other work `taskset -c 0` measures one thread, which waits for no other.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from ultrashape_cli.evaluation.parity import Cases, relative
from ultrashape_cli.exporting.aoti import cache_folder, compiled_graphs
from ultrashape_cli.exporting.graphs import Graph, eager_graph
from ultrashape_cli.exporting.onnx_files import open_part, write_part
from ultrashape_cli.exporting.parts import PARTS, make_part
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import load_networks, resolve_named

MEASURED = ("dit", "query")


def least(graphs: dict[str, Graph], inputs: tuple[torch.Tensor, ...], rounds: int) -> dict:
    """Return the least seconds of each backend; the first round, which warms up, does not count."""
    seconds = dict.fromkeys(graphs, float("inf"))
    for number in range(rounds + 1):
        for name, graph in graphs.items():
            started = time.perf_counter()
            graph(*inputs)
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="tiny", help="weights, or a model that has packaged ones"
    )
    parser.add_argument("--sizes", default="128,512,1024,3072", help="most latent tokens")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    source = resolve_named(Path(arguments.model))
    spec = model_spec(source.model)
    sizes = tuple(int(size) for size in arguments.sizes.split(","))
    networks = load_networks(source)
    cases = Cases(spec, sizes)
    started = time.perf_counter()
    compiled = compiled_graphs(networks, spec, print)
    print(f"packages ready in {time.perf_counter() - started:.1f} s: {cache_folder(spec).name}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| part | size | torch s | onnx s | aoti s | onnx | aoti | onnx error | aoti error |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTS:
            given, made = cases.follow(name, make_part(name, networks, spec))
            if name not in MEASURED:
                continue
            eager = make_part(name, networks, spec)
            # Of its own networks: an ONNX file has dense experts, torch keeps the loop.
            twin = load_networks(source)
            write_part(name, make_part(name, twin, spec), spec, Path(folder))
            graphs = {
                "torch": eager_graph(eager),
                "onnx": open_part(Path(folder) / f"{name}.onnx"),
                "aoti": compiled[name],
            }
            for inputs, expected in zip(given[: len(sizes)], made, strict=False):
                seconds = least(graphs, inputs, arguments.rounds)
                errors = {
                    way: relative(graphs[way](*inputs)[0], expected[0]) for way in ("onnx", "aoti")
                }
                unit = "tokens" if name == "dit" else "queries"
                cells = [name, f"{inputs[0].shape[1]} {unit}"]
                cells += [f"{seconds[way]:.4f}" for way in graphs]
                cells += [f"{seconds['torch'] / seconds[way]:.2f} x" for way in ("onnx", "aoti")]
                cells += [f"{errors[way]:.1e}" for way in ("onnx", "aoti")]
                print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
