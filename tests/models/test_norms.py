"""Norms: their definitions, and the dtype they read and write."""

import pytest
import torch
from torch import nn

from ultrashape_cli.models.norms import LayerNorm, RMSNorm


def test_rms_norm_follows_its_definition():
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    norm = RMSNorm(24)
    norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-6)
    fused = torch.nn.functional.rms_norm(x, (24,), norm.weight, 1e-6)
    assert torch.allclose(norm(x), fused, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_a_layer_norm_is_that_of_torch():
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    ours, theirs = LayerNorm(24, eps=1e-6), nn.LayerNorm(24, eps=1e-6)
    for norm in (ours, theirs):
        norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("norm", [LayerNorm(24), RMSNorm(24)])
def test_norms_keep_the_dtype_of_their_input_under_autocast(norm):
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x).dtype == torch.float32
        half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), norm(x), atol=0.03)
