"""What a refinement needs before anything is loaded, which mode fits, and what to lower.

Bytes come from the real modules on fake tensors. Assumed are only the driver's context and
fragmentation, and that every patch of the image is foreground.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ultrashape_cli.config.choices import MemoryMode
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.devices import CONTEXT_BYTES, FRAGMENTATION, autocast, compute_dtype, free_bytes
from ultrashape_cli.errors import UsageError, UShapeError
from ultrashape_cli.formatting import cause
from ultrashape_cli.inference.decode import SMALLEST_CHUNK
from ultrashape_cli.inference.streaming import SLOTS, quantise_dit
from ultrashape_cli.inference.velocity import NetworkVelocity
from ultrashape_cli.models.metering import Meter, materialise, planning, size_of
from ultrashape_cli.models.quantised_file import Quantisation, prepare_layers
from ultrashape_cli.models.registry import ModelSpec, Networks, build

MODES: tuple[MemoryMode, ...] = tuple(mode for mode in get_args(MemoryMode) if mode != "auto")
STAGES = ("condition", "sample", "decode")
_NETWORKS = {"condition": "conditioner", "sample": "dit", "decode": "vae"}


FEWEST_TOKENS = 64
LIMIT_MARGIN = 0.05
"""Of a limit that is offered: the process itself is never twice of the same size."""


class OutOfMemory(UShapeError):
    """A stage needed more memory than there is.

    Args:
        message: What ran out.
        option: What to add to the command.
    """

    def __init__(self, message: str, *, option: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"add {option} to the command")
        self.option = option


@contextlib.contextmanager
def memory_errors(stage: str, option: str) -> Iterator[None]:
    """Turns exhausted memory inside a stage into an error that names the option to add.

    Raises:
        OutOfMemory: Memory of the host or the device ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"out of memory in stage `{stage}` ({cause(error)[:200]})"
        raise OutOfMemory(message, option=option) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an exception means that memory of the host or the device ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The allocators of the CPU and of MPS have no exception of their own; the words differ.
    words = ("not enough memory", "can't allocate memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes of a refinement, by stage."""

    weights: dict[str, int]
    """Of the network of each stage."""
    activations: dict[str, int]
    """Most bytes a stage holds beside weights; of decoding, without queries."""
    blocks: int
    """Weights of all blocks of the DiT."""
    largest_block: int
    per_query: int
    """Decoding, for each point of a chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinePlan:
    """Where the weights wait and what each stage needs of the device."""

    mode: MemoryMode
    chunk_size: int
    tokens: int
    stages: dict[str, int]
    """Bytes of the device by stage."""
    fixed: int
    """Bytes beside them: driver context or the process itself."""
    host: int
    """Bytes of weights that wait in host memory."""
    budget: int
    quantised: Quantisation | None = None
    """Of the weights that were planned for, where they are a quantised file."""
    views: int = 1
    """Images that were planned for."""

    @property
    def needed(self) -> int:
        """Most bytes of the device at once."""
        return max(self.stages.values()) + self.fixed

    @property
    def fits(self) -> bool:
        """Says whether the budget suffices."""
        return self.needed <= self.budget


@functools.lru_cache(maxsize=64)
def measure_refinement(
    spec: ModelSpec,
    config: RefineConfig,
    tokens: int,
    *,
    accelerator: bool,
    int8: bool = False,
    quantised: Quantisation | None = None,
    views: int = 1,
) -> Footprint:
    """Returns what the stages take, from the real modules on fake tensors; treat it as frozen.

    That takes seconds at full size, and a plan asks for the same more than once.

    Args:
        spec: The model.
        config: Settings of the run.
        tokens: Latent tokens.
        accelerator: Count the kernels of a GPU, where they differ from those of a CPU.
        int8: Quantise the DiT.
        quantised: Count the codes of such a file.
        views: Images whose tokens a pass sees.
    """
    networks = build(spec, vae_parts=spec.inference_parts(encodes=config.encodes))
    if int8:
        assert networks.dit is not None
        quantise_dit(networks.dit)
    if quantised is not None:
        assert networks.dit is not None
        prepare_layers(networks.dit, quantised)
    half = compute_dtype(config.dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), planning(accelerator):
        for module in networks:
            assert module is not None
            materialise(module, lambda parameter: half)
        with torch.no_grad():
            return _measure(spec, config, tokens, networks, views)


def _measure(
    spec: ModelSpec, config: RefineConfig, tokens: int, networks: Networks, views: int
) -> Footprint:
    conditioner, dit, vae = networks.conditioner, networks.dit, networks.vae
    assert conditioner is not None
    assert dit is not None
    assert vae is not None
    cpu = torch.device("cpu")
    half = dit.x_embedder.weight.dtype
    side = spec.conditioner.image_size
    weights = {stage: _size(getattr(networks, name)) for stage, name in _NETWORKS.items()}
    activations = {}
    with _metered(conditioner) as meter, autocast(cpu, config.dtype):
        context = conditioner.main_image_encoder.model(torch.randn(1, 3, side, side, dtype=half))
    activations["condition"] = meter.peak - weights["condition"]
    del context
    size = views * spec.conditioner.tokens_of(side)
    with _metered(dit) as meter:
        context = torch.randn(1, size, spec.conditioner.width, dtype=half)
        seen: Any = context
        if config.cache_context:
            with autocast(cpu, config.dtype):
                seen = dit.context_keys(context)
        voxels = torch.zeros(1, tokens, 3, dtype=torch.long)
        # Values that fake tensors have not decide where guidance is on: plan for on.
        always = replace(config, guidance_start=0.0, guidance_end=1.0)
        velocity = NetworkVelocity(dit, seen, None, voxels, always, cpu)
        x = torch.randn(1, tokens, spec.dit.in_channels)
        # The states that a solver of second order keeps.
        kept = [torch.empty_like(x) for _ in range(3)]
        velocity.guided()(x, torch.rand(1))
    activations["sample"] = meter.peak - weights["sample"]
    del context, seen, velocity, kept
    with _metered(vae) as meter, autocast(cpu, config.dtype):
        field = vae.field(vae.decode(torch.randn(1, tokens, spec.vae.latent_channels)))
        per_query = field.bytes_per_query
    activations["decode"] = meter.peak - weights["decode"]
    if config.backend == "onnx":
        # Its attention holds the scores of all pairs of tokens, and their exponentials.
        pair = 2 * 4
        activations["sample"] += pair * spec.dit.num_heads * (tokens + 1) ** 2
        activations["decode"] += pair * spec.vae.num_heads * tokens**2
        per_query += pair * spec.vae.num_heads * tokens
    blocks = [_size(block) for block in dit.blocks]
    return Footprint(
        weights=weights,
        activations=activations,
        blocks=sum(blocks),
        largest_block=max(blocks),
        per_query=per_query,
    )


@contextlib.contextmanager
def _metered(network: nn.Module) -> Iterator[Meter]:
    """Counts what is made inside the block, and the network's weights, which views share."""
    with Meter() as meter:
        for value in (*network.parameters(), *network.buffers()):
            meter.track(value)
        yield meter


def _size(module: nn.Module) -> int:
    return sum(map(size_of, (*module.parameters(), *module.buffers())))


def plan_refinement(
    spec: ModelSpec,
    config: RefineConfig,
    device: torch.device,
    tokens: int,
    *,
    budget: int | None = None,
    host: int | None = None,
    quantised: Quantisation | None = None,
    views: int = 1,
) -> RefinePlan:
    """Returns the first mode that fits the memory, or the one asked for; the last where none does.

    Args:
        spec: The model.
        config: Settings of the run; `tokens` there is a bound, not used here.
        device: Where it runs.
        tokens: Latent tokens.
        budget: Bytes of the device to use; None takes `max_memory_gib`, else what is free.
        host: Bytes of host memory for waiting weights; None takes what is free.
        quantised: What the weights are, where they are a quantised file.
        views: Images that are asked; all at once only with `refine.view_mode=trained`.

    Raises:
        UsageError: They are codes already, and mode `int8` would make some of them.
    """
    if quantised is not None:
        refuse_int8(config, quantised)
    accelerator = device.type == "cuda"
    tokens = min(tokens, spec.vae.voxel_resolution**3)
    budget = free_memory(config, device) if budget is None else budget
    host = psutil.virtual_memory().available if host is None else host
    if config.memory != "auto":
        modes: tuple[MemoryMode, ...] = (config.memory,)
    elif config.backend in ("aoti", "onnx"):
        modes = ("resident",)
    else:
        modes = modes_on(device, quantised)
    at_once = views if config.view_mode == "trained" else 1
    measure = functools.partial(
        measure_refinement, spec, config, tokens, accelerator=accelerator, views=at_once
    )
    plain = measure(quantised=quantised)
    plan: RefinePlan | None = None
    for mode in modes:
        found = plain
        if mode == "int8":
            found = measure(int8=True)
        plan = _plan(mode, found, config, tokens, budget, device)
        plan = replace(plan, quantised=quantised, views=views)
        if plan.fits and (mode == "resident" or not accelerator or plan.host <= host):
            return plan
    assert plan is not None
    return plan


def modes_on(device: torch.device, quantised: Quantisation | None) -> tuple[MemoryMode, ...]:
    """Returns the modes that help on a device, most memory first; codes are not quantised again."""
    # On the CPU, and on MPS, waiting weights take the same memory as those in use.
    modes: tuple[MemoryMode, ...] = MODES if device.type == "cuda" else ("resident", "int8")
    return modes if quantised is None else tuple(mode for mode in modes if mode != "int8")


def refuse_int8(config: RefineConfig, quantised: Quantisation) -> None:
    """Raises UsageError where mode `int8` is asked for of weights that are codes already."""
    if config.memory == "int8":
        raise UsageError(
            f"mode `int8` is of no use: the weights are quantised already ({quantised.scheme})",
            hint="--set refine.memory=auto, or sequential or streamed for less memory",
        )


def _plan(
    mode: MemoryMode,
    found: Footprint,
    config: RefineConfig,
    tokens: int,
    budget: int,
    device: torch.device,
) -> RefinePlan:
    everything = sum(found.weights.values())
    static = dict(found.weights)
    if mode == "resident" or device.type != "cuda":
        static = dict.fromkeys(STAGES, everything)
    elif mode == "streamed":
        slots = SLOTS * found.largest_block
        static["sample"] -= found.blocks
        static = {stage: size + slots for stage, size in static.items()}
    stages = {stage: static[stage] + found.activations[stage] for stage in STAGES}
    # What is free for MPS is so beside the process.
    own = {"cuda": CONTEXT_BYTES, "mps": 0}
    fixed = own.get(device.type, psutil.Process().memory_info().rss)
    share = 1 if device.type == "cpu" else 1 + FRAGMENTATION
    left = (budget - fixed) / share - stages["decode"]
    chunk = int(min(max(left / found.per_query, SMALLEST_CHUNK), config.chunk_size))
    stages["decode"] += chunk * found.per_query
    return RefinePlan(
        mode=mode,
        chunk_size=chunk,
        tokens=tokens,
        stages={stage: int(size * share) for stage, size in stages.items()},
        fixed=fixed,
        host=0 if mode == "resident" else everything,
        budget=budget,
    )


def free_memory(config: RefineConfig, device: torch.device) -> int:
    """Returns the bytes of the device that a run may use."""
    if config.max_memory_gib:
        return int(config.max_memory_gib * 2**30)
    # On a CPU the plan counts what the process holds by now as used.
    own = psutil.Process().memory_info().rss if device.type == "cpu" else 0
    return free_bytes(device) + own


def check_plan(
    plan: RefinePlan, spec: ModelSpec, config: RefineConfig, device: torch.device
) -> None:
    """Raises OutOfMemory, which names the option that helps, where the plan does not fit."""
    if plan.fits:
        return
    needed, there = plan.needed / 2**30, plan.budget / 2**30
    message = (
        f"{plan.tokens:,} tokens need about {needed:.2f} GiB in mode `{plan.mode}`, "
        f"{there:.2f} GiB may be used"
    )
    if config.memory != "auto":
        raise OutOfMemory(message, option="--set refine.memory=auto")
    sizes = [plan.tokens]
    while sizes[-1] > FEWEST_TOKENS:
        sizes.append(sizes[-1] // 2)
    same: dict[str, Any] = {"budget": plan.budget, "quantised": plan.quantised, "views": plan.views}
    plans = [plan_refinement(spec, config, device, size, **same) for size in sizes]
    if smaller := next((found for found in plans if found.fits), None):
        raise OutOfMemory(message, option=f"--tokens {smaller.tokens}")
    # Only the limit that was set is too low for all of them, or the machine is.
    there = free_memory(replace(config, max_memory_gib=0.0), device)
    for found in plans:
        least = math.ceil(found.needed * (1 + LIMIT_MARGIN) / 2**30 * 100) / 100
        if config.max_memory_gib and least * 2**30 <= there:
            fewer = f" --tokens {found.tokens}" if found.tokens < plan.tokens else ""
            raise OutOfMemory(message, option=f"--max-memory-gib {least:g}{fewer}")
    if device.type != "cpu":
        raise OutOfMemory(message, option="--device cpu")
    least = plans[-1].needed / 2**30
    raise OutOfMemory(
        message, hint=f"a machine with {least:.1f} GiB of free memory, or close other programs"
    )


def limit_device(config: RefineConfig, device: torch.device) -> None:
    """Makes the device refuse more than `max_memory_gib`, should a plan be wrong."""
    if config.max_memory_gib and device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        share = min(config.max_memory_gib * 2**30 / total, 1.0)
        # A device without an index, which all others take for the present one, is an error there.
        torch.cuda.set_per_process_memory_fraction(share, device.index)
