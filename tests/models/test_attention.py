import pytest
import torch

from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.models.attention import (
    AttentionLayer,
    RMSNorm,
    attention,
    key_lengths,
    set_attention_backend,
)
from ultrashape_cli.models.registry import build, model_spec


def tensors(num_keys: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2, 7, 16), (3, 2, num_keys, 16), (3, 2, num_keys, 16))
    q, k, v = (torch.randn(s, generator=generator) for s in shapes)
    return q, k, v


@pytest.mark.parametrize("lengths", [None, (4, 4, 4), (9, 1, 5)])
def test_sdpa_equals_the_written_out_softmax(lengths):
    q, k, v = tensors()
    fast, twin = (attention(q, k, v, lengths=lengths, backend=b) for b in ("sdpa", "reference"))
    assert torch.allclose(fast, twin, atol=1e-6)


def test_lengths_equal_a_key_mask():
    q, k, v = tensors()
    lengths = (9, 1, 5)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(attention(q, k, v, lengths=lengths), expected, atol=1e-6)


def test_full_lengths_mean_no_padding():
    assert key_lengths(None, 5) is None
    assert key_lengths([5, 5], 5) is None
    assert key_lengths(torch.tensor([5, 2]), 5) == (5, 2)
    with pytest.raises(ValueError, match=r"1\.\.5"):
        key_lengths([6], 5)


def test_the_backend_is_set_in_every_layer():
    networks = build(model_spec("tiny"))
    for network in networks:
        set_attention_backend(network, "reference")
        layers = [m for m in network.modules() if isinstance(m, AttentionLayer)]
        assert layers
        assert {layer.backend for layer in layers} == {"reference"}
    with pytest.raises(ConfigError, match="sdpa"):
        set_attention_backend(networks.dit, "fast")


def test_a_missing_flash_package_is_named():
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        with pytest.raises(DependencyError, match="flash"):
            attention(*tensors(), backend="flash")
    else:
        pytest.skip("flash-attn is installed")


def test_rms_norm_follows_its_definition():
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    norm = RMSNorm(24)
    norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
