"""AdamW with 8-bit moments: two bytes of state per parameter instead of eight.

Moments are stored in blocks of 256 with one fp32 scale each (block-wise quantisation as in
Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022). Instead of a code table the
8 bits hold a root of the value relative to its block's largest: the square root of the first
moment, the fourth root of the second, which keeps 1.4 % and 2.0 % median relative error over the
range that moments have. Plain torch operations: runs wherever torch does, in one pass over memory
where torch can compile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ultrashape_cli.formatting import cause
from ultrashape_cli.training.memory.rounding import hash_bits, stochastic_round

logger = logging.getLogger(__name__)

BLOCK = 256
MIN_QUANTISED = 4096
"""Smaller tensors (norms, biases) keep fp32 moments: they weigh nothing and matter."""
COMPILED_FROM = 20_000_000
"""Weights from which the seconds of compiling pay."""
_TINY = torch.finfo(torch.float32).tiny
_KEY_STRIDE, _SEED_STRIDE = 0x9E3779B1, 0x85EBCA6B
"""Spread the keys of parameters and seeds over 32 bits."""


def quantise_signed(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes (int8 [N]) and block scales (fp32 [ceil(N / 256)]) of a first moment."""
    codes, scale = _encode_signed(_blocks(values))
    return codes.view(-1)[: values.numel()], scale


def dequantise_signed(codes: Tensor, scale: Tensor) -> Tensor:
    """Returns the first moment, fp32 [N]."""
    return _decode_signed(_blocks(codes), scale).view(-1)[: codes.numel()]


def quantise_positive(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns codes (uint8 [N]) and block scales of a second moment."""
    codes, scale = _encode_positive(_blocks(values))
    return codes.view(-1)[: values.numel()], scale


def dequantise_positive(codes: Tensor, scale: Tensor) -> Tensor:
    """Returns the second moment, fp32 [N]."""
    return _decode_positive(_blocks(codes), scale).view(-1)[: codes.numel()]


# Of blocks [B, 256], with scales [B].


def _encode_signed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = blocks.abs().amax(1, keepdim=True)
    codes = blocks.div(scale.clamp_min(_TINY))
    return codes.abs().sqrt().mul(127).round().copysign(blocks).to(torch.int8), scale.view(-1)


def _decode_signed(codes: Tensor, scale: Tensor) -> Tensor:
    roots = codes.to(torch.float32).div(127)
    return roots * roots.abs() * scale[:, None]


def _encode_positive(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = blocks.amax(1, keepdim=True)
    codes = blocks.div(scale.clamp_min(_TINY)).sqrt().sqrt()
    # A second moment of zero beside a first one that is not would make a giant step.
    return codes.mul(255).round().clamp_min(1).to(torch.uint8), scale.view(-1)


def _decode_positive(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.to(torch.float32).div(255).square().square() * scale[:, None]


def _step_blocks(
    weight: Tensor,  # [B, 256]
    gradient: Tensor,  # [B, 256]
    first: Tensor,  # int8 [B, 256]
    second: Tensor,  # uint8 [B, 256]
    first_scale: Tensor,  # [B]
    second_scale: Tensor,  # [B]
    numbers: Tensor,  # [8]
    key: Tensor,  # []
) -> None:
    """Steps a weight and its quantised moments in place.

    All of it in blocks: a compiler makes one pass of operations of one shape.
    """
    moments = _decode_signed(first, first_scale), _decode_positive(second, second_scale)
    new_first, new_second = _advance(weight, gradient, *moments, numbers, key)
    for old, new in zip((first, first_scale), _encode_signed(new_first), strict=True):
        old.copy_(new)
    for old, new in zip((second, second_scale), _encode_positive(new_second), strict=True):
        old.copy_(new)


def _step_exact(
    weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, numbers: Tensor, key: Tensor
) -> None:
    """Steps a weight and its fp32 moments in place, all [N]."""
    new_first, new_second = _advance(weight, gradient, first, second, numbers, key)
    first.copy_(new_first)
    second.copy_(new_second)


def _advance(
    weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, numbers: Tensor, key: Tensor
) -> tuple[Tensor, Tensor]:
    """Steps a weight in place and returns its new moments, fp32, all of one shape."""
    new1, keep2, new2, eps, decay, rate, root, scale = numbers.unbind()
    gradient = gradient.to(torch.float32) * scale
    first = first + (gradient - first) * new1
    second = second * keep2 + gradient * gradient * new2
    values = weight.to(torch.float32) * decay - rate * first / (second.sqrt() * root + eps)
    weight.copy_(stochastic_round(values, key) if weight.dtype == torch.bfloat16 else values)
    return first, second


def _blocks(values: Tensor) -> Tensor:  # [...] -> [ceil(N / 256), 256]
    flat = values.reshape(-1)
    missing = -flat.numel() % BLOCK
    return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) with quantised moments.

    bf16 parameters are rounded stochastically; their noise is a function of the seed, the step and
    the parameter's number, so that a resumed run repeats it. Above `COMPILED_FROM` weights the
    update of a parameter is one fused pass over memory where torch can compile, instead of some
    forty.

    Args:
        params: Parameters or groups, as for `torch.optim.AdamW`.
        lr: Learning rate.
        betas: Decay of the two moments, the same for all groups.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        seed: Of the rounding noise.
        compiled: Fuse the update; None decides by size.
    """

    gradient_scale = 1.0
    """What the next step multiplies all gradients with."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        seed: int = 0,
        compiled: bool | None = None,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self._seed = seed
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._keys = {
            p: torch.tensor(number * _KEY_STRIDE, device=p.device)
            for number, p in enumerate(parameters)
            if p.dtype == torch.bfloat16
        }
        size = sum(p.numel() for p in parameters)
        self._compiled = size >= COMPILED_FROM if compiled is None else compiled
        self._step_blocks, self._step_exact = _step_blocks, _step_exact
        if self._compiled:
            # From the second size on the code is for any number of blocks, always of 256.
            self._step_blocks = torch.compile(_step_blocks, fullgraph=True)
            self._step_exact = torch.compile(_step_exact, fullgraph=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step; parameters without a gradient stay."""
        assert closure is None, "closures are not supported"
        # Read by kernels from the device: numbers of the host would be constants of a kernel.
        numbers: dict[Any, tuple[Tensor, Tensor]] = {}
        for index, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter] or self._start(parameter)
                state["step"] += 1
                known = index, state["step"], parameter.device
                if known not in numbers:
                    numbers[known] = self._numbers(group, state["step"], parameter.device)
                self._update(parameter, parameter.grad, state, *numbers[known])

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

    def _numbers(
        self, group: dict[str, Any], step: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Returns what all parameters of a group share in a step, as `_advance` takes it."""
        beta1, beta2 = group["betas"]
        found = torch.tensor(
            [
                1 - beta1,
                beta2,
                1 - beta2,
                group["eps"],
                1 - group["lr"] * group["weight_decay"],
                group["lr"] / (1 - beta1**step),
                1 / math.sqrt(1 - beta2**step),
                self.gradient_scale,
            ]
        )
        key = torch.tensor((self._seed * _SEED_STRIDE + step) % 2**32)
        return found.to(device), hash_bits(key).to(device)

    def _update(
        self,
        parameter: Tensor,
        gradient: Tensor,
        state: dict[str, Any],
        numbers: Tensor,
        noise: Tensor,
    ) -> None:
        key = (self._keys[parameter] + noise) if parameter in self._keys else noise
        given = [parameter.detach().view(-1), gradient.detach().reshape(-1)]
        given += [state["first"], state["second"]]
        if "first_scale" not in state:
            self._run(self._step_exact, _step_exact, *given, numbers, key)
            return
        blocks = [_blocks(values) for values in given]
        scales = state["first_scale"], state["second_scale"]
        self._run(self._step_blocks, _step_blocks, *blocks, *scales, numbers, key)
        if parameter.numel() % BLOCK:
            for values, padded in zip(given, blocks, strict=True):
                values.copy_(padded.view(-1)[: values.numel()])

    def _run(self, kernel: Callable[..., None], plain: Callable[..., None], *given: Tensor) -> None:
        """Runs a kernel; from now on the plain ones where torch cannot compile it here."""
        try:
            kernel(*given)
        except RuntimeError as error:
            # Compilers fail before anything is written: there is none, no Python headers, no disk.
            if kernel is plain or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = cause(getattr(error, "inner_exception", error))
            logger.warning("the optimizer is not compiled, and slower: %s", reason)
            self._step_blocks, self._step_exact = _step_blocks, _step_exact
            plain(*given)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, with its dtypes."""
        # torch would cast all states to the parameters' dtype, four times the memory, and spoil
        # codes and scales.
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, saved in state_dict["state"].items():
            device = parameters[index].device
            self.state[parameters[index]] = {
                name: value.to(device, copy=True) if isinstance(value, Tensor) else value
                for name, value in saved.items()
            }
