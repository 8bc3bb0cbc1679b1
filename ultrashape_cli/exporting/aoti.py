"""Parts compiled ahead of time by AOTInductor, for this machine and any weights of a model.

A package holds code alone, experts dispatched in a loop as in eager mode. Weights are handed to it
where they lie, so fine-tuned ones need no other package.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.exporting import parts
from ultrashape_cli.exporting.graphs import Graph
from ultrashape_cli.exporting.parts import dynamic_shapes, example_inputs, make_part
from ultrashape_cli.files import sync, temporary_path, user_cache
from ultrashape_cli.formatting import cause
from ultrashape_cli.models import (
    attention,
    conditioner,
    dit,
    embeddings,
    moe,
    norms,
    registry,
    vae,
)
from ultrashape_cli.models.registry import ModelSpec, Networks

COMPILED = ("dit", "query")
"""Parts that are asked more than once for a mesh; the others would not earn their compilation."""
_OPTIONS = {
    # Weights stay outside, so that one package serves all checkpoints of a model.
    "aot_inductor.package_constants_in_so": False,
    # Else the code asks for as many threads as there were when it was compiled.
    "cpp.dynamic_threads": True,
}
_SOURCES = (attention, conditioner, dit, embeddings, moe, norms, registry, vae, parts)

Tell = Callable[[str], None]
"""What is done that takes time."""


def cache_folder(spec: ModelSpec) -> Path:
    """Returns the folder of a model's packages: one for each machine type, torch and graph.

    What the graph is follows from the sizes of the model and the code of the networks; weights
    have no part in it.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    machine = f"{platform.system()}-{platform.machine()}-{capability}".lower()
    state = hashlib.sha256(repr((spec, sorted(_OPTIONS.items()))).encode())
    for module in _SOURCES:
        assert module.__file__ is not None
        state.update(Path(module.__file__).read_bytes())
    name = f"{spec.name}-{machine}-torch{torch.__version__}-{state.hexdigest()[:12]}"
    return user_cache("aoti") / name


def compiled_graphs(networks: Networks, spec: ModelSpec, tell: Tell) -> dict[str, Graph]:
    """Returns the compiled parts of networks on the CPU; compiles those not in the cache.

    Args:
        networks: In fp32; the graphs read their weights, which must stay where they are.
        spec: The model.
        tell: Called before and after each compilation.

    Raises:
        DependencyError: There is no compiler here that torch can use.
        DiskError: The cache cannot be written.
    """
    folder = cache_folder(spec)
    return {
        name: _load(_package(name, networks, spec, folder, tell), make_part(name, networks, spec))
        for name in COMPILED
    }


def _package(name: str, networks: Networks, spec: ModelSpec, folder: Path, tell: Tell) -> Path:
    path = folder / f"{name}.pt2"
    if path.is_file():
        return path
    tell(f"compiling the {name} of `{spec.name}` for this machine, once; kept in {folder}")
    started = time.monotonic()
    # It is renamed when whole: of two processes that compile the same, the last one's stays.
    with temporary_path(path) as temporary:
        _compile(name, make_part(name, networks, spec), spec, temporary)
        sync(temporary)
    tell(f"compiled the {name} in {time.monotonic() - started:.0f} s")
    return path


def _compile(name: str, part: nn.Module, spec: ModelSpec, target: Path) -> None:
    moe.set_expert_dispatch(part, "loop")
    inputs = example_inputs(name, spec)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        try:
            program = torch.export.export(part, inputs, dynamic_shapes=dynamic_shapes(name))
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(target), inductor_configs=dict(_OPTIONS)
            )
        except RuntimeError as error:
            reason = cause(getattr(error, "inner_exception", error))
            raise DependencyError(
                f"torch cannot compile here: {reason[:300]}",
                hint="a C++ compiler (apt-get install g++), or --backend torch",
            ) from error


def _load(path: Path, part: nn.Module) -> Graph:
    try:
        model = torch._inductor.aoti_load_package(str(path))
    except RuntimeError as error:
        # Cut off by a full disk, or copied from another machine: made anew by the next command.
        with contextlib.suppress(OSError):
            path.unlink()
        raise DependencyError(
            f"the compiled `{path}` does not load ({cause(error)[:200]}) and was removed",
            hint="repeat the command, which compiles it anew; or --backend torch",
        ) from error
    weights = part.state_dict()
    wanted = {name: weights[name] for name in model.get_constant_fqns()}
    model.load_constants(wanted, check_full_update=True, user_managed=True)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        # The part keeps the weights alive, which the package only points to.
        assert part is not None
        found = model(*inputs)
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    return run
