import pytest
import torch

from ultrashape_cli.models.moe import MoEFeedForward, dense_reference


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
