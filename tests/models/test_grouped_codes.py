"""Codes of 8, 6 and 4 bits: packing, and what they cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ultrashape_cli.models import quantised
from ultrashape_cli.models.grouped_codes import GROUP, GROUP_INT8
from ultrashape_cli.models.quantised import FP8, QuantisedLinear, empty_codes, encode_weight

KINDS = ("int8-groups", "int6", "int4")
RANGES = {"int8-groups": (-127, 127), "int6": (-31, 31), "int4": (0, 15)}
GROUPS = {"int8-groups": GROUP_INT8, "int6": GROUP, "int4": GROUP}
WIDTHS = (1, 7, 31, 32, 33, 96, 130)


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer


def _exact(outputs: int, inputs: int, kind: str) -> Tensor:
    """Weights that codes can tell exactly: each group has both ends of the range."""
    low, high = RANGES[kind]
    generator = torch.Generator().manual_seed(inputs)
    codes = torch.randint(low, high + 1, (outputs, inputs), generator=generator).float()
    codes[:, :: GROUPS[kind]] = high
    codes[:, 1 :: GROUPS[kind]] = low
    return codes * 0.25 - (3.0 if kind == "int4" else 0.0)


@pytest.mark.parametrize("inputs", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_packing_loses_nothing_at_any_width(kind: str, inputs: int, monkeypatch) -> None:
    weight = _exact(5, inputs, kind)
    layer = QuantisedLinear(_linear(weight), kind)
    assert torch.equal(layer.dequantise(torch.float32), weight)
    monkeypatch.setattr(quantised, "_PIECE", 1)  # row by row
    pieces = encode_weight(weight, kind)
    assert all(torch.equal(tensor, getattr(layer, name)) for name, tensor in pieces.items())


@pytest.mark.parametrize("inputs", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_shapes_are_known_without_the_weights(kind: str, inputs: int) -> None:
    made = encode_weight(torch.randn(5, inputs), kind)
    known = empty_codes(inputs, 5, kind)
    assert {name: (t.shape, t.dtype) for name, t in made.items()} == {
        name: (t.shape, t.dtype) for name, t in known.items()
    }


@pytest.mark.parametrize(("kind", "bits"), [("int8-groups", 9.0), ("int6", 6.5), ("int4", 5.0)])
def test_a_weight_takes_its_bits_and_its_part_of_the_scales(kind: str, bits: float) -> None:
    made = encode_weight(torch.randn(64, 128), kind)
    assert sum(t.nbytes for t in made.values()) * 8 == 64 * 128 * bits


def _plain(weight: Tensor, kind: str) -> Tensor:
    """The twin without a search: the whole range of each group, in fp32."""
    groups = weight.unflatten(1, (-1, GROUP))
    if kind == "int6":
        scale, offset = groups.abs().amax(-1, keepdim=True) / 31, torch.zeros(1)
    else:
        offset = groups.amin(-1, keepdim=True)
        scale = (groups.amax(-1, keepdim=True) - offset) / 15
    return (((groups - offset) / scale).round() * scale + offset).flatten(1)


@pytest.mark.parametrize("kind", ["int6", "int4"])
def test_the_search_costs_no_accuracy(kind: str) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    found = QuantisedLinear(_linear(weight), kind).dequantise(torch.float32)
    ours, twin = ((w - weight).norm() for w in (found, _plain(weight, kind)))
    # Rounded scales alone cost int6 a thousandth at most; int4 gains by clipping.
    assert ours < (0.99 if kind == "int4" else 1.001) * twin


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_zeros_and_of_one_value_stay_what_they_are(kind: str) -> None:
    weight = torch.zeros(3, 40)
    weight[1] = 0.5
    weight[2] = -0.5
    found = QuantisedLinear(_linear(weight), kind).dequantise(torch.float32)
    assert torch.allclose(found, weight, rtol=2**-8)
    assert not found[0].abs().gt(1e-9).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_compute_with_the_weights_they_stand_for(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    source = nn.Linear(50, 6).to(dtype)
    layer = QuantisedLinear(source, kind)
    x = torch.randn(4, 50, dtype=dtype, requires_grad=True)
    expected = x @ layer.dequantise(dtype).T + source.bias
    assert torch.equal(layer(x), expected)
    layer(x).sum().backward()
    assert x.grad is not None


@torch.no_grad()
@pytest.mark.parametrize(("kind", "limit"), [("int8-dynamic", 0.004), ("fp8", 0.02)])
def test_a_product_in_8_bit_has_a_scale_for_each_token_and_each_row(
    kind: str, limit: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(48, 40)
    layer.weight[3] *= 1000
    made = QuantisedLinear(layer, kind)
    x = torch.randn(3, 7, 48, generator=generator)
    # One loud token or row must not cost the others their digits.
    x[0, 0] *= 1000
    plain = layer(x)
    size = x.norm(dim=-1, keepdim=True) * layer.weight.norm(dim=1)
    assert ((made(x) - plain).abs() / size).max() < limit
    weights_alone = x @ made.weight.T + layer.bias
    assert (made(x) - plain).norm() > (weights_alone - plain).norm()
    largest = 127 if kind == "int8-dynamic" else 448
    step = x.abs().amax(-1, keepdim=True) / largest
    codes = (x / step).round() if kind == "int8-dynamic" else (x / step).to(FP8).float()
    exact = codes.double() * step.double() @ made.weight.double().T + layer.bias.double()
    assert torch.allclose(made(x).double(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["int8-dynamic", "fp8"])
def test_a_product_in_8_bit_lets_gradients_through_as_the_others_do(kind: str) -> None:
    made = QuantisedLinear(torch.nn.Linear(8, 8), kind)
    x = torch.randn(2, 8, requires_grad=True)
    made(x).sum().backward()
    assert torch.allclose(x.grad, made.weight.sum(0).expand(2, 8), atol=1e-5)


@torch.no_grad()
def test_floats_of_8_bit_stay_bytes_whatever_the_dtype_of_the_module() -> None:
    layer = torch.nn.Linear(32, 16)
    made = QuantisedLinear(layer, "fp8")
    assert made.codes.dtype == torch.uint8
    assert made.bfloat16().codes.dtype == torch.uint8
    assert made(torch.zeros(0, 32, dtype=torch.bfloat16)).shape == (0, 16)
    found = QuantisedLinear(layer, "fp8").weight
    # Half a step of three bits of fraction, of the largest weight of the row where smaller.
    assert ((found - layer.weight).abs() <= layer.weight.abs() / 15 + 1e-4).all()
