"""Codes of 8 and 4 bits, against plain twins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.models import quantised
from ultrashape_cli.models.quantised import NF4, NF4_BLOCK, QuantisedLinear

LEVELS = torch.tensor(NF4)


def _layer(outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs).to(dtype)
    with torch.no_grad():
        layer.weight[1] = 0
    return layer


def _plain_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (weight.float() / scale).round().to(torch.int8), scale


def _plain_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    flat = weight.float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    codes = torch.bucketize(blocks / scale, (LEVELS[1:] + LEVELS[:-1]) / 2).to(torch.uint8)
    high, low = codes.view(-1, 2).unbind(1)
    return (high << 4) | low, scale


PLAIN = {"int8": _plain_int8, "nf4": _plain_nf4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
# In one piece, in many, in pieces of a row, and with a last block that is not whole.
@pytest.mark.parametrize(("shape", "piece"), [((8, 128), 1 << 20), ((9, 96), 200), ((3, 70), 1)])
def test_codes_are_those_of_the_plain_twin(kind, dtype, shape, piece, monkeypatch) -> None:
    monkeypatch.setattr(quantised, "_PIECE", piece)
    layer = _layer(*shape, dtype)
    found = QuantisedLinear(layer, kind)
    codes, scale = PLAIN[kind](layer.weight.detach())
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.scale, scale)


def test_nf4_codes_are_right_at_every_border() -> None:
    middles = (LEVELS[1:] + LEVELS[:-1]) / 2
    up, down = torch.tensor(2.0), torch.tensor(-2.0)
    values = torch.cat([LEVELS, middles, middles.nextafter(up), middles.nextafter(down)])
    # The largest of each block is 1, so that the others are what they are.
    weight = torch.ones(2, NF4_BLOCK)
    weight.view(-1)[1 : 1 + len(values)] = values
    layer = nn.Linear(NF4_BLOCK, 2, bias=False)
    layer.weight.data = weight
    assert torch.equal(QuantisedLinear(layer, "nf4").codes, _plain_nf4(weight)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_weights_are_levels_times_scales(dtype: torch.dtype) -> None:
    layer = QuantisedLinear(_layer(8, 128), "nf4")
    codes = torch.stack([layer.codes >> 4, layer.codes & 15], dim=-1).long()
    levels = torch.tensor(NF4, dtype=dtype)[codes].view(-1, NF4_BLOCK)
    assert torch.equal(layer.dequantise(dtype), (levels * layer.scale.to(dtype)).view(8, 128))


def test_the_levels_are_in_no_checkpoint_and_no_dtype_rounds_them() -> None:
    layer = QuantisedLinear(_layer(8, 128), "nf4")
    assert layer.state_dict().keys() == {"codes", "scale", "bias"}
    layer.scale = torch.ones_like(layer.scale)
    before = layer.dequantise(torch.float32)
    assert torch.equal(layer.bfloat16().dequantise(torch.float32), before)


def test_an_unknown_kind_names_the_known_ones() -> None:
    known = "known: int8, int8-dynamic, int8-groups, fp8, int6, int4, nf4"
    with pytest.raises(ValueError, match=known):
        QuantisedLinear(_layer(8, 64), "int3")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_card_finds_the_same_codes_and_leaves_them_on_the_host(kind: str) -> None:
    layer = _layer(256, 1000)
    host, card = (
        QuantisedLinear(layer, kind, device=device) for device in (None, torch.device("cuda"))
    )
    assert card.codes.device.type == "cpu"
    assert torch.equal(card.codes, host.codes)
    assert torch.equal(card.scale, host.scale)
