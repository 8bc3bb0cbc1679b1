"""AdamW with 8-bit moments: two bytes of state per parameter instead of eight.

Moments are stored in blocks of 256 with one fp32 scale each (block-wise quantisation as in
Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022). Instead of a code table the
8 bits hold a root of the value relative to its block's largest: the square root of the first
moment, the fourth root of the second, which keeps 1.4 % and 2.0 % median relative error over the
range that moments have. Plain torch operations: runs wherever torch does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ultrashape_cli.training.memory.rounding import stochastic_round

BLOCK = 256
MIN_QUANTISED = 4096
"""Smaller tensors (norms, biases) keep fp32 moments: they weigh nothing and matter."""


def quantise_signed(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes (int8 [N]) and block scales (fp32 [ceil(N / 256)]) of a first moment."""
    blocks = _blocks(values)
    scale = blocks.abs().amax(1, keepdim=True)
    codes = blocks.div(scale.clamp_min(torch.finfo(torch.float32).tiny))
    codes = codes.abs().sqrt_().mul_(127).round_().copysign_(blocks).to(torch.int8)
    return codes.view(-1)[: values.numel()], scale.view(-1)


def dequantise_signed(codes: Tensor, scale: Tensor) -> Tensor:
    """Returns the first moment, fp32 [N]."""
    roots = _blocks(codes).to(torch.float32).div_(127)
    return roots.mul_(roots.abs()).mul_(scale[:, None]).view(-1)[: codes.numel()]


def quantise_positive(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes (uint8 [N]) and block scales of a second moment."""
    blocks = _blocks(values)
    scale = blocks.amax(1, keepdim=True)
    codes = blocks.div(scale.clamp_min(torch.finfo(torch.float32).tiny)).sqrt_().sqrt_()
    # A second moment of zero beside a first one that is not would make a giant step.
    codes = codes.mul_(255).round_().clamp_min_(1).to(torch.uint8)
    return codes.view(-1)[: values.numel()], scale.view(-1)


def dequantise_positive(codes: Tensor, scale: Tensor) -> Tensor:
    """Returns the second moment, fp32 [N]."""
    roots = _blocks(codes).to(torch.float32).div_(255).square_()
    return roots.square_().mul_(scale[:, None]).view(-1)[: codes.numel()]


def _blocks(values: Tensor) -> Tensor:  # [...] -> [ceil(N / 256), 256]
    flat = values.reshape(-1)
    missing = -flat.numel() % BLOCK
    return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) with quantised moments.

    bf16 parameters are rounded stochastically; their noise is a function of the seed and the
    step, so that a resumed run repeats it.

    Args:
        params: Parameters or groups, as for `torch.optim.AdamW`.
        lr: Learning rate.
        betas: Decay of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        seed: Of the rounding noise.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step; parameters without a gradient stay."""
        assert closure is None, "closures are not supported"
        seeded: set[torch.device] = set()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter] or self._start(parameter)
                state["step"] += 1
                device = parameter.device
                if parameter.dtype == torch.bfloat16 and device not in seeded:
                    seeded.add(device)
                    generator = self._generators.setdefault(device, torch.Generator(device))
                    generator.manual_seed((self._seed << 32) + state["step"])
                self._update(parameter, gradient, state, group)

    def _start(self, parameter: Tensor) -> dict[str, Any]:
        zeros = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
        state: dict[str, Any] = {"step": 0}
        if parameter.numel() < MIN_QUANTISED:
            state |= {"first": zeros, "second": zeros.clone()}
        else:
            for name, quantise in (("first", quantise_signed), ("second", quantise_positive)):
                state[name], state[f"{name}_scale"] = quantise(zeros)
        self.state[parameter] = state
        return state

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        gradient = gradient.detach().reshape(-1).to(torch.float32)
        quantised = "first_scale" in state
        first, second = state["first"], state["second"]
        if quantised:
            first = dequantise_signed(first, state["first_scale"])
            second = dequantise_positive(second, state["second_scale"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if quantised:
            state["first"], state["first_scale"] = quantise_signed(first)
            state["second"], state["second_scale"] = quantise_positive(second)
        root = second.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
        rate = group["lr"] / (1 - beta1 ** state["step"])
        exact = parameter.dtype == torch.float32
        values = parameter.view(-1) if exact else parameter.view(-1).to(torch.float32)
        values.mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(first, root, value=-rate)
        if parameter.dtype == torch.bfloat16:
            values = stochastic_round(values, self._generators[parameter.device])
        if not exact:
            parameter.copy_(values.view_as(parameter))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, with its dtypes."""
        super().load_state_dict(dict(state_dict))
        parameters = [p for group in self.param_groups for p in group["params"]]
        # torch casts every state to the parameter's dtype, which would spoil codes and scales.
        for index, saved in state_dict["state"].items():
            device = parameters[index].device
            self.state[parameters[index]] = {
                name: value.to(device, copy=True) if isinstance(value, Tensor) else value
                for name, value in saved.items()
            }
