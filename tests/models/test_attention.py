import contextlib
import logging
import sys
import time
import types

import pytest
import torch

from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.models import attention as attention_module
from ultrashape_cli.models.attention import (
    BACKENDS,
    AttentionLayer,
    _note_fallback,
    attention,
    kept_backends,
    key_lengths,
    set_attention_backend,
)
from ultrashape_cli.models.attention_choice import (
    AttentionShape,
    choose_backend,
    conditioner_shapes,
    decoder_shapes,
    dit_shapes,
    encoder_shapes,
    time_backends,
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


@pytest.mark.parametrize("backend", ["flash", "cudnn"])
def test_half_precision_kernels_leave_fp32_to_sdpa_with_one_line(backend, monkeypatch, caplog):
    kernel = types.ModuleType("flash_attn")
    kernel.flash_attn_func = lambda *_: pytest.fail("the kernel got fp32")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", kernel)
    _note_fallback.cache_clear()
    q, k, v = tensors()
    for _ in range(3):
        assert torch.equal(attention(q, k, v, backend=backend), attention(q, k, v))
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert backend in caplog.text
    assert "float32" in caplog.text


SHAPES = (AttentionShape(1, 2, 7, 9, 16), AttentionShape(1, 2, 7, 7, 16))


def test_the_only_backend_needs_no_measurement(caplog):
    caplog.set_level(logging.INFO)
    assert choose_backend(SHAPES) == "sdpa"
    assert "sdpa" in caplog.text


def test_the_fastest_backend_is_chosen_and_logged(monkeypatch, caplog):
    def slow(q, k, v):
        time.sleep(0.02)
        return q

    monkeypatch.setitem(BACKENDS, "sdpa", slow)
    caplog.set_level(logging.INFO)
    assert choose_backend(SHAPES, candidates=("sdpa", "reference")) == "reference"
    assert "reference" in caplog.text
    assert "sdpa" in caplog.text
    assert "ms" in caplog.text


def test_backends_that_fail_are_left_out(monkeypatch):
    def broken(q, k, v):
        raise RuntimeError("no kernel")

    monkeypatch.setitem(BACKENDS, "sdpa", broken)
    seconds = time_backends(SHAPES, backward=True, candidates=("sdpa", "reference"))
    assert list(seconds) == ["reference"]
    assert seconds["reference"] > 0
    with pytest.raises(ValueError, match="unknown"):
        choose_backend(SHAPES, candidates=("fast",))


def test_a_network_gets_its_backends_back():
    networks = build(model_spec("tiny"), components=("dit",))
    dit = networks.dit
    set_attention_backend(dit, "cudnn")
    with contextlib.suppress(RuntimeError), kept_backends(dit):
        set_attention_backend(dit, "reference")
        raise RuntimeError
    assert {layer.backend for layer in dit.modules() if hasattr(layer, "backend")} == {"cudnn"}


@pytest.mark.parametrize("stage", ["encoder", "decoder", "conditioner", "dit"])
def test_the_shapes_to_time_are_those_that_a_network_asks_for(monkeypatch, stage):
    seen = set()
    original = attention_module.BACKENDS["sdpa"]

    def watched(q, k, v):
        seen.add(AttentionShape(q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.shape[3]))
        return original(q, k, v)

    monkeypatch.setitem(attention_module.BACKENDS, "sdpa", watched)
    spec = model_spec("tiny")
    networks = build(spec, device="cpu")
    with torch.no_grad():
        if stage == "encoder":
            centres = torch.zeros(1, 12, 3)
            networks.vae.encode(torch.rand(1, 90, 7), centres, torch.Generator())
            wanted = encoder_shapes(spec.vae, 90, 12)
        elif stage == "decoder":
            field = networks.vae.field(
                networks.vae.decode(torch.rand(1, 12, spec.vae.latent_channels))
            )
            field(torch.rand(33, 3))
            wanted = decoder_shapes(spec.vae, 12, 33)
        elif stage == "conditioner":
            side = 2 * spec.conditioner.patch_size
            networks.conditioner.main_image_encoder.model(torch.rand(1, 3, side, side))
            wanted = conditioner_shapes(spec.conditioner, 1, side)
        else:
            networks.dit(
                torch.rand(2, 12, spec.dit.in_channels),
                torch.rand(2),
                torch.rand(2, 5, spec.dit.context_channels),
                torch.zeros(2, 12, 3, dtype=torch.long),
            )
            wanted = dit_shapes(spec.dit, 2, 12, 5)
    assert seen == set(wanted)
