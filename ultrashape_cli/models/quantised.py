"""Linear layers with frozen weights of 8, 6 or 4 bits, in plain torch operations.

Legend: O output channels, I input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.models.grouped_codes import (
    GROUP,
    GROUP_INT8,
    decode_int4,
    decode_int6,
    decode_int8,
    encode_int4,
    encode_int6,
    encode_int8,
    groups_of,
)

NF4 = (
    *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
)
"""Levels of the 4-bit NormalFloat (Dettmers et al., "QLoRA", 2023, appendix E)."""
NF4_BLOCK = 64
_LEVELS = torch.tensor(NF4)
# Floats as integers, which no change of a module's dtype rounds: the two levels of each byte.
_PAIRS = torch.cartesian_prod(_LEVELS, _LEVELS).view(torch.int32)  # [256, 2]
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
"""Of its numbers: 4 bits of exponent, 3 of fraction (Micikevicius et al., "FP8 formats", 2022)."""
_PIECE = 1 << 20
"""Weights that a CPU encodes at once: its passes over them then stay in the cache."""


class _FrozenProduct(torch.autograd.Function):
    """x @ W.T that keeps the codes, not the weight they stand for, until the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype, ctx.kind = layer, dtype, x.dtype
        return x.to(dtype) @ layer.dequantise(dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return (grad.to(ctx.dtype) @ ctx.layer.dequantise(ctx.dtype)).to(ctx.kind), None, None


class QuantisedLinear(nn.Linear):
    """A frozen linear layer whose weight is kept as codes and scales.

    `int8` has one scale per output channel, `int8-groups` one per 16 weights of a row, `int6` and
    `int4` one per 32 (and `int4` an offset), `nf4` 16 normal quantiles and one scale per 64
    weights. `int8-dynamic` has the codes of `int8` and multiplies them with the input in 8 bit, a
    scale per token (`dynamic_product`); `fp8` does so with floats of 8 bit.
    Gradients reach the input only.

    Args:
        source: The layer to quantise; only its sizes and its bias count where `tensors` are given.
        kind: `int8`, `int8-dynamic`, `int8-groups`, `fp8`, `int6`, `int4` or `nf4`.
        device: Where to compute the codes, which then lie where the weight does; None for there.
        tensors: Codes and scales that are there already, from `encode_weight`.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor
    pairs: Tensor

    def __init__(
        self,
        source: nn.Linear,
        kind: str,
        *,
        device: torch.device | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = source.in_features, source.out_features
        self.kind = kind
        if kind not in _ENCODERS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(_ENCODERS)}")
        home = source.weight.device
        if tensors is None:
            tensors = encode_weight(source.weight.detach().to(device or home), kind)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.to(home))
        if kind == "nf4":
            self.register_buffer("pairs", _PAIRS.to(home), persistent=False)
        bias = None if source.bias is None else nn.Parameter(source.bias.detach(), False)
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight the codes stand for, fp32 [O, I]."""
        return self.dequantise(torch.float32)

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight [O, I] in another dtype."""
        if self.kind in ("int8", "int8-dynamic"):
            return self.codes.to(dtype) * self.scale.to(dtype)
        if self.kind == "fp8":
            return self.codes.view(FP8).to(dtype) * self.scale.to(dtype)
        if self.kind == "int8-groups":
            return decode_int8(self.codes, self.scale, self.in_features, dtype)
        if self.kind == "int6":
            return decode_int6(self.codes, self.scale, self.in_features, dtype)
        if self.kind == "int4":
            return decode_int4(self.codes, self.scale, self.offset, self.in_features, dtype)
        pairs = self.pairs.view(torch.float32).to(dtype)
        values = F.embedding(self.codes.int(), pairs)
        values = values.view(-1, NF4_BLOCK) * self.scale.to(dtype)
        count = self.out_features * self.in_features
        return values.view(-1)[:count].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:  # [..., I] -> [..., O]
        """Apply the layer in the ambient dtype."""
        kind = x.device.type
        auto = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if auto else x.dtype
        is_dynamic = self.kind in ("int8-dynamic", "fp8") and not torch.is_grad_enabled()
        if is_dynamic and fits_8_bit(x, self):
            product = dynamic_product(x, self.codes, self.scale, dtype)
        else:
            product = _FrozenProduct.apply(x, self, dtype)
        return product if self.bias is None else product + self.bias.to(dtype)


def fits_8_bit(x: Tensor, layer: QuantisedLinear) -> bool:
    """Says whether a device multiplies this input with codes of 8 bit; floats from Ada on."""
    if x.device.type != "cuda":
        return x.device.type == "cpu"
    multiple = 16 if layer.kind == "fp8" else 8
    if layer.in_features % multiple or layer.out_features % multiple:
        return False
    if layer.kind == "fp8":
        return torch.cuda.get_device_capability(x.device) >= (8, 9)
    return x.numel() // max(x.shape[-1], 1) > 16


def dynamic_product(x: Tensor, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns x @ W.T, computed in 8 bit: a scale for each row of x, found anew each time.

    Args:
        x: Input [..., I].
        codes: Of the weight [O, I], int8, or the bytes of `FP8`.
        scale: Of its rows [O, 1].
        dtype: Of the result [..., O].
    """
    shape = *x.shape[:-1], codes.shape[0]
    if not x.numel():  # an expert that no token chose
        return x.new_zeros(shape, dtype=dtype)
    is_fp8 = codes.dtype == torch.uint8
    rows = x.reshape(-1, x.shape[-1]).float()
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)
    step = largest / (FP8_LARGEST if is_fp8 else 127)
    if is_fp8:
        product = torch._scaled_mm(
            *((rows / step).to(FP8), codes.view(FP8).T, step, scale.float().T),
            # Cards give nothing wider where each row has its scale.
            out_dtype=torch.float32 if x.device.type == "cpu" else torch.bfloat16,
        )
    else:
        found = torch._int_mm((rows / step).round_().to(torch.int8), codes.T)
        product = found.float().mul_(step).mul_(scale.float().T)
    return product.to(dtype).view(shape)


def encode_weight(weight: Tensor, kind: str) -> dict[str, Tensor]:  # [O, I]
    """Returns the buffers of a `QuantisedLinear` by name: `codes`, `scale`, for int4 `offset`."""
    return _ENCODERS[kind](weight)


def empty_codes(inputs: int, outputs: int, kind: str) -> dict[str, Tensor]:
    """Returns what `encode_weight` would, on the meta device: shapes and dtypes alone.

    Raises:
        ValueError: A kind that has no file.
    """
    scale = [outputs, groups_of(inputs)]
    shapes: dict[str, tuple[list[int], torch.dtype]]
    if kind in ("int8-dynamic", "fp8"):
        shapes = {
            "codes": ([outputs, inputs], torch.uint8 if kind == "fp8" else torch.int8),
            "scale": ([outputs, 1], torch.float32),
        }
    elif kind == "int8-groups":
        scale = [outputs, groups_of(inputs, GROUP_INT8)]
        shapes = {
            "codes": ([outputs, scale[1] * GROUP_INT8], torch.int8),
            "scale": (scale, torch.bfloat16),
        }
    elif kind in ("int6", "int4"):
        bits = int(kind[-1])
        codes = [outputs, scale[1] * GROUP * bits // 8]
        shapes = {"codes": (codes, torch.uint8), "scale": (scale, torch.bfloat16)}
        if kind == "int4":
            shapes["offset"] = (scale, torch.bfloat16)
    else:
        known = "int8-dynamic, int8-groups, fp8, int6, int4"
        raise ValueError(f"unknown kind {kind!r}; known: {known}")
    return {
        name: torch.empty(shape, dtype=dtype, device="meta")
        for name, (shape, dtype) in shapes.items()
    }


def _encode_int8(weight: Tensor) -> dict[str, Tensor]:  # [O, I] -> [O, I], [O, 1]
    """Returns codes in -127..127 and one scale per output channel."""
    found = []
    for rows in _pieces(weight, weight.shape[1]):
        largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)
        # By a tensor: CUDA multiplies by the inverse of a number, which rounds differently.
        scale = largest / torch.full_like(largest, 127)
        found.append(((rows / scale).round_().to(torch.int8), scale))
    codes, scales = zip(*found, strict=True)
    return {"codes": torch.cat(codes), "scale": torch.cat(scales)}


def _encode_fp8(weight: Tensor) -> dict[str, Tensor]:  # [O, I] -> [O, I], [O, 1]
    """Returns floats of 8 bit as bytes, which no change of a module's dtype widens, and scales."""
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / FP8_LARGEST
    return {"codes": (weight / scale).to(FP8).view(torch.uint8), "scale": scale}


def _encode_nf4(weight: Tensor) -> dict[str, Tensor]:  # [O, I] -> [N / 2], [N / 64, 1]
    """Returns two codes per byte and one scale per block of all N weights."""
    flat = weight.reshape(-1)
    blocks = F.pad(flat, (0, -flat.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    middles = (_LEVELS[1:] + _LEVELS[:-1]) / 2
    # Of the cells of 1/32 none holds two middles: its number tells the code but for one.
    cells = _cell(middles)
    below = (cells < torch.arange(65)[:, None]).sum(1).to(weight.device, torch.uint8)
    within = torch.full((65,), torch.inf).index_put((cells,), middles).to(weight.device)
    found = []
    for part in _pieces(blocks, NF4_BLOCK):
        scale = part.abs().amax(1, keepdim=True).clamp_min(1e-12)
        values = (part / scale).view(-1)
        cell = _cell(values)
        codes = below.index_select(0, cell)
        codes += values > within.index_select(0, cell)
        pairs = codes.view(-1, 2)
        found.append(((pairs[:, 0] << 4) | pairs[:, 1], scale))
    parts, scales = zip(*found, strict=True)
    return {"codes": torch.cat(parts), "scale": torch.cat(scales)}


def _by_rows(encode: Callable[[Tensor], dict[str, Tensor]], weight: Tensor) -> dict[str, Tensor]:
    """Encodes rows that do not know of each other, and puts them together."""
    found = [encode(rows) for rows in _pieces(weight, weight.shape[1])]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


_ENCODERS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "int8": _encode_int8,
    "int8-dynamic": _encode_int8,
    "int8-groups": partial(_by_rows, encode_int8),
    "fp8": partial(_by_rows, _encode_fp8),
    "int6": partial(_by_rows, encode_int6),
    "int4": partial(_by_rows, encode_int4),
    "nf4": _encode_nf4,
}


def _pieces(matrix: Tensor, width: int) -> Iterator[Tensor]:
    """Yields rows in fp32: all at once but on a CPU."""
    rows = max(1, _PIECE // width) if matrix.device.type == "cpu" else len(matrix)
    for part in matrix.split(rows):
        yield part.float()


def _cell(values: Tensor) -> Tensor:  # in [-1, 1] -> 0..64
    return values.add(1).mul_(32).int()


def quantise_linears(
    module: nn.Module, names: list[str], kind: str, *, device: torch.device | None = None
) -> None:
    """Replaces the named linear layers below `module` by quantised ones, one after the other.

    Args:
        module: The network.
        names: Of its layers.
        kind: As of `QuantisedLinear`.
        device: Where to compute the codes; they lie where the weights did.
    """
    for name in names:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        module.set_submodule(name, QuantisedLinear(layer, kind, device=device))
