import pytest
import torch

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.moe import (
    DISPATCHES,
    MoEFeedForward,
    dense_reference,
    probe_grouped_mm,
    set_expert_dispatch,
)


def layer(num_experts: int = 4, top_k: int = 2) -> MoEFeedForward:
    torch.manual_seed(0)
    return MoEFeedForward(16, 32, num_experts, top_k)


def tokens() -> torch.Tensor:
    return torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (8, 1), (3, 3)])
def test_dispatch_equals_running_every_expert(num_experts, top_k):
    moe, results = layer(num_experts, top_k), []
    for run in (moe, lambda x: dense_reference(moe, x)):
        moe.zero_grad()
        x = tokens().requires_grad_()
        out = run(x)
        (out.hidden.square().sum() + out.aux_loss).backward()
        results.append((out, x.grad, [p.grad.clone() for p in moe.parameters()]))
    (fast, fast_x, fast_p), (twin, twin_x, twin_p) = results
    assert torch.allclose(fast.hidden, twin.hidden, atol=1e-6)
    assert torch.equal(fast.load, twin.load)
    assert torch.allclose(fast.aux_loss, twin.aux_loss)
    for a, b in zip([fast_x, *fast_p], [twin_x, *twin_p], strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_loads_count_every_choice():
    assert layer()(tokens()).load.sum() == 2 * 9 * 2


def test_experts_without_tokens_get_zero_gradients():
    moe = layer()
    moe.gate.weight.data.zero_()
    moe.gate.weight.data[:2] = 1.0  # positive inputs now choose experts 0 and 1
    out = moe(tokens().abs())
    out.hidden.sum().backward()
    assert out.load.tolist() == [18, 18, 0, 0]
    for parameter in moe.experts[3].parameters():
        assert not parameter.grad.any()


def test_balanced_routing_has_the_smallest_auxiliary_loss():
    moe = layer()
    moe.gate.weight.data.zero_()
    assert moe(tokens()).aux_loss.item() == pytest.approx(0.01)


def test_gradient_repeats_bit_for_bit():
    moe, gradients = layer(), []
    for _ in range(2):
        moe.zero_grad()
        moe(tokens()).hidden.square().sum().backward()
        gradients.append([p.grad.clone() for p in moe.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
def test_grouped_products_and_dense_experts_equal_the_loop(autocast):
    if not probe_grouped_mm("cpu", torch.bfloat16 if autocast else torch.float32):
        pytest.skip("this torch has no grouped product on the CPU")
    moe, results = layer(), []
    for dispatch in DISPATCHES:
        assert set_expert_dispatch(moe, dispatch) == dispatch
        moe.zero_grad()
        x = tokens().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = moe(x)
        (out.hidden.float().square().sum() + out.aux_loss).backward()
        results.append([out.hidden.detach(), x.grad, *(p.grad.clone() for p in moe.parameters())])
    for loop, *others in zip(*results, strict=True):
        scale = loop.abs().max()
        # bf16 rounds the products of each layer once more or less: 8 bits.
        for other in others:
            assert (loop - other).abs().max() <= (0.03 if autocast else 1e-5) * scale


def test_experts_without_tokens_get_zero_gradients_from_grouped_products():
    moe = layer()
    if set_expert_dispatch(moe, "grouped") == "loop":
        pytest.skip("this torch has no grouped product on the CPU")
    moe.gate.weight.data.zero_()
    moe.gate.weight.data[:2] = 1.0
    moe(tokens().abs()).hidden.sum().backward()
    assert all(not p.grad.any() for p in moe.experts[3].parameters())


def test_without_grouped_products_the_loop_stays(monkeypatch, caplog):
    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("ultrashape_cli.models.moe.find_grouped_mm", lambda: broken)
    probe_grouped_mm.cache_clear()
    try:
        moe = layer()
        assert set_expert_dispatch(moe, "grouped") == "loop"
        assert not moe.grouped
        assert "experts run in turn" in caplog.text
    finally:
        probe_grouped_mm.cache_clear()
    with pytest.raises(ConfigError, match="grouped"):
        set_expert_dispatch(moe, "fast")


def test_a_wrong_grouped_product_is_noticed(monkeypatch):
    monkeypatch.setattr(
        "ultrashape_cli.models.moe.find_grouped_mm",
        lambda: lambda rows, weight, offs: rows @ weight[0],
    )
    assert not probe_grouped_mm.__wrapped__("cpu", torch.float32)


def test_evaluation_gives_experts_gradients():
    moe = layer().eval()
    moe(tokens()).hidden.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in moe.experts.parameters())


def test_the_auxiliary_loss_scales_with_the_loss():
    # The reference injects it as a gradient of its own that no factor reaches.
    moe, gradients = layer(), []
    for factor in (1.0, 0.25):
        moe.zero_grad()
        (factor * moe(tokens()).aux_loss).backward()
        gradients.append(moe.gate.weight.grad.clone())
    assert torch.allclose(gradients[1], 0.25 * gradients[0])


def test_replaced_linear_layers_are_not_passed_over_by_grouped_products():
    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    moe, results = layer(), []
    for expert in moe.experts:
        expert.net[2] = Doubled(32, 16)
    for moe.grouped in (False, True):
        results.append(moe(tokens()).hidden)
    assert torch.equal(*results)
