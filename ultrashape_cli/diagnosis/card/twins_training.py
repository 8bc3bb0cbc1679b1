"""Checks of a device: what training rests on, beside plain optimizers and itself."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.dataset import Item
from ultrashape_cli.diagnosis.card.context import require_compiler
from ultrashape_cli.diagnosis.card.twins import Twin, draw
from ultrashape_cli.inference.streaming import BlockStream
from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.benchmark import random_load, synthetic_batches
from ultrashape_cli.training.curriculum import Stage
from ultrashape_cli.training.memory.adamw8bit import AdamW8bit
from ultrashape_cli.training.memory.offload import OffloadedAdamW
from ultrashape_cli.training.memory.rounding import stochastic_round
from ultrashape_cli.training.memory.strategies import ADAM_BETAS, ADAM_EPS
from ultrashape_cli.training.networks import build_networks
from ultrashape_cli.training.trainer import Trainer
from ultrashape_cli.training.worker import start_accelerator

RATE = 1e-3
"""Learning rate of the optimizers; errors of weights are told as parts of it."""
OPTIONS: dict[str, Any] = {"lr": RATE, "betas": ADAM_BETAS, "eps": ADAM_EPS}


def check_adamw_8bit(device: torch.device) -> Twin:
    """Compares five steps of the 8-bit optimizer with AdamW in fp64.

    The first step uses moments that were not rounded yet, and must agree; later ones within what
    the rounding of the moments does.
    """
    start = draw(512, 64)
    ours = nn.Parameter(start.to(device))
    theirs = nn.Parameter(start.double())
    eight = AdamW8bit([{"params": [ours], "weight_decay": 0.01}], **OPTIONS)
    plain = torch.optim.AdamW([theirs], weight_decay=0.01, **OPTIONS)
    errors = []
    for step in range(5):
        gradient = _gradient(step)
        ours.grad, theirs.grad = gradient.to(device), gradient.double()
        eight.step()
        plain.step()
        errors.append(float((ours.detach().cpu().double() - theirs.detach()).abs().mean()) / RATE)
    if errors[0] > 1e-3:
        return Twin(error=errors[0], allowed=1e-3, note="of the first step")
    return Twin(error=errors[-1], allowed=0.1)


def check_adamw_compiled(device: torch.device) -> Twin:
    """Compares three steps of the 8-bit optimizer in one fused pass with those of plain ones."""
    require_compiler(device)
    pair = [nn.Parameter(draw(512, 64).to(device)) for _ in range(2)]
    fused, plain = (
        AdamW8bit([{"params": [weight], "weight_decay": 0.01}], compiled=compiled, **OPTIONS)
        for weight, compiled in zip(pair, (True, False), strict=True)
    )
    for step in range(3):
        for weight, optimizer in zip(pair, (fused, plain), strict=True):
            weight.grad = _gradient(step).to(device)
            optimizer.step()
    if fused._step_blocks is plain._step_blocks:
        return Twin(error=float("inf"), allowed=0.0, note="could not be compiled")
    error = float((pair[0] - pair[1]).detach().abs().mean()) / RATE
    # A moment between two codes may take either.
    return Twin(error=error, allowed=0.01)


def _gradient(step: int) -> Tensor:
    """Returns a gradient that keeps its direction as far as training has one, of all magnitudes."""
    return draw(512, 64, seed=1) * draw(512, 1, seed=2).exp() + 0.3 * draw(512, 64, seed=3 + step)


def check_rounding(device: torch.device) -> Twin:
    """Rounds a million numbers stochastically: right in the mean, and as the CPU bit by bit."""
    count, cut = 2**20, 0.3
    step = 2.0**-7
    values = torch.full((count,), 1.0 + cut * step, device=device)

    def rounded(key: int) -> Tensor:
        return stochastic_round(values, torch.tensor(key, device=device))

    first, again, other = rounded(1), rounded(1), rounded(2)
    if not torch.equal(first, again) or torch.equal(first, other):
        return Twin(error=float("inf"), allowed=0.0, note="the key does not decide")
    if set(first.float().unique().tolist()) != {1.0, 1.0 + step}:
        return Twin(error=float("inf"), allowed=0.0, note="not to the neighbours")
    if not torch.equal(first.cpu(), stochastic_round(values.cpu(), torch.tensor(1))):
        return Twin(error=float("inf"), allowed=0.0, note="not as on the CPU")
    odd = torch.tensor([float("inf"), float("-inf"), float("nan")])
    kept = stochastic_round(odd.to(device), torch.tensor(1, device=device)).float().cpu()
    if not torch.equal(kept[:2], odd[:2]) or not bool(kept[2].isnan()):
        return Twin(error=float("inf"), allowed=0.0, note="changes what is not finite")
    up = float((first.float() - 1.0).mean(dtype=torch.float64)) / step
    # Five standard deviations of a share of a million draws.
    return Twin(error=abs(up - cut), allowed=5 * (cut * (1 - cut) / count) ** 0.5)


def check_offload(device: torch.device) -> Twin:
    """Compares three steps of offloaded AdamW with torch's on the host, from the same gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # More layers than there are buffers on the way.
        masters = nn.Sequential(*(nn.Linear(96, 96) for _ in range(8)))
    weights = copy.deepcopy(masters).to(device, torch.bfloat16)
    twin = copy.deepcopy(weights)
    options = OPTIONS | {"weight_decay": 0.01}
    own = dict(zip(weights.parameters(), (p.detach() for p in masters.parameters()), strict=True))
    offloaded = OffloadedAdamW([{"params": list(weights.parameters())}], own, **options)
    plain = torch.optim.AdamW(masters.parameters(), fused=True, **options)
    for step in range(3):
        for part in range(2):
            x = draw(32, 96, seed=2 * step + part, dtype=torch.bfloat16).to(device)
            for net in (weights, twin):
                net(x).float().square().mean().backward()
            for master, parameter in zip(masters.parameters(), twin.parameters(), strict=True):
                assert parameter.grad is not None
                gradient = parameter.grad.float().cpu()
                master.grad = gradient if master.grad is None else master.grad + gradient
                parameter.grad = None
        offloaded.step()
        offloaded.zero_grad()
        plain.step()
        plain.zero_grad()
        with torch.no_grad():
            for parameter, master in zip(twin.parameters(), masters.parameters(), strict=True):
                parameter.copy_(master)
    if not all(
        torch.equal(a, b) for a, b in zip(weights.parameters(), twin.parameters(), strict=True)
    ):
        return Twin(error=float("inf"), allowed=0.0, note="weights are not those of the host")
    pairs = zip(offloaded.masters, masters.parameters(), strict=True)
    error = max(float((a - b).detach().abs().max()) for a, b in pairs) / RATE
    return Twin(error=error, allowed=1e-3, note="" if error else "bitwise")


def check_stream(device: torch.device) -> Twin:
    """Compares a transformer whose blocks come from the host with itself, bit by bit."""
    dit = random_networks(model_spec("tiny"), components=("dit",), dtype=torch.bfloat16).dit
    assert dit is not None
    params = dit.params
    inputs = [
        draw(1, 40, params.in_channels).to(device),
        torch.tensor([0.4], device=device),
        draw(1, 9, params.context_channels, seed=1, dtype=torch.bfloat16).to(device),
        (torch.arange(120).view(1, 40, 3) % params.voxel_resolution).to(device),
    ]
    with torch.no_grad():
        expected = copy.deepcopy(dit).to(device)(*inputs).velocity
        for child in dit.children():
            if child is not dit.blocks:
                child.to(device)
        stream = BlockStream(dit.blocks, device)
        # Again and again: slots are filled while the blocks before compute.
        found = [dit(*inputs).velocity for _ in range(8)]
        stream.close()
    wrong = sum(not torch.equal(value, expected) for value in found)
    return Twin(error=float(wrong), allowed=0.0, note="" if wrong else "bitwise")


def check_resume(device: torch.device) -> Twin:
    """Compares a step after a checkpoint with the same one in the run that went on."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    config = resolve(
        flags={
            # Whichever card: of its profile only the dtype is used.
            **{"profile": "a40" if kind == "cuda" else "cpu", "device": kind},
            **{"train.model": "tiny", "train.strategy": "full-8bit", "train.steps": 4},
            **{"train.num_latents": 32, "train.surface_points": 512},
            **{"train.microbatch": 1, "train.accumulation": 2, "train.learning_rate": RATE},
            "train.async_checkpoints": False,
        },
        environ={},
    ).config
    with tempfile.TemporaryDirectory() as folder:
        first = _trainer(config, Path(folder))
        for _ in range(2):
            first.train_step()
        first.save()
        before = {name: value.clone() for name, value in first.trainee.trained().items()}
        first.train_step()
        second = _trainer(config, Path(folder))
        assert second.step == 2
        second.train_step()
    gone, back = first.trainee.trained(), second.trainee.trained()
    moved = sum(float((gone[name] - before[name]).double().square().sum()) for name in gone)
    apart = sum(float((gone[name] - back[name]).double().square().sum()) for name in gone)
    error = (apart / moved) ** 0.5
    # Of the step's length; kernels that add in any order may differ between two runs of one step.
    return Twin(error=error, allowed=0.01, note="" if error else "bitwise")


def _trainer(config: Config, folder: Path) -> Trainer:
    accelerator = start_accelerator(config)
    device = accelerator.device
    torch.manual_seed(config.seed)
    component, net, objective = build_networks(config, random_load(config, device), device)

    def batches(start: int) -> Iterator[Item]:
        for item in synthetic_batches(config, device):
            yield {**item, "counter": item["counter"] + start}

    return Trainer(
        config,
        run=RunFolder(folder),
        net=net,
        component=component,
        objective=objective,
        batches=batches,
        accelerator=accelerator,
        stages=[Stage(0, config.train.num_latents, config.train.image_size)],
    )


TRAINING_CHECKS: dict[str, Callable[[torch.device], Twin]] = {
    "adamw-8bit": check_adamw_8bit,
    "adamw-compiled": check_adamw_compiled,
    "rounding": check_rounding,
    "offload": check_offload,
    "stream": check_stream,
    "resume": check_resume,
}
