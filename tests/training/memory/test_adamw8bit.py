"""8-bit AdamW against torch's own, its codes, its rounding, its state."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code

from ultrashape_cli.models.metering import Meter
from ultrashape_cli.training.memory.adamw8bit import (
    AdamW8bit,
    dequantise_positive,
    dequantise_signed,
    quantise_positive,
    quantise_signed,
)
from ultrashape_cli.training.memory.rounding import stochastic_round

SIDE = 96
OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6}


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 255, 256, 5000])
def test_codes_keep_two_per_cent(size: int) -> None:
    first = _noise(size)
    restored = dequantise_signed(*quantise_signed(first))
    assert (restored - first).norm() <= 0.01 * first.norm()
    second = first.square() * torch.exp(2 * _noise(size, seed=1))
    restored = dequantise_positive(*quantise_positive(second))
    assert (restored - second).norm() <= 0.02 * second.norm()


def test_a_second_moment_is_never_zero_beside_a_larger_one() -> None:
    values = torch.zeros(256)
    values[0] = 1.0
    assert (dequantise_positive(*quantise_positive(values)) > 0).all()


def test_zeros_stay_zeros() -> None:
    assert not dequantise_signed(*quantise_signed(torch.zeros(300))).any()
    assert not dequantise_positive(*quantise_positive(torch.zeros(300))).any()


def _solve(make, dtype: torch.dtype, steps: int = 200) -> tuple[nn.Parameter, float]:
    """Fits a noisy least-squares problem; returns the weights and the error left."""
    truth, weight = _noise(SIDE, SIDE), nn.Parameter(torch.zeros(SIDE, SIDE, dtype=dtype))
    optimizer = make([weight])
    for step in range(steps):
        inputs = _noise(32, SIDE, seed=step + 10)
        loss = (inputs @ (weight.float() - truth)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return weight, float((weight.detach().float() - truth).square().mean())


def test_it_learns_like_adamw_with_full_states() -> None:
    exact, error = _solve(lambda p: torch.optim.AdamW(p, weight_decay=0.01, **OPTIONS), torch.float)
    ours, error_8bit = _solve(lambda p: AdamW8bit(p, weight_decay=0.01, **OPTIONS), torch.float)
    assert error_8bit == pytest.approx(error, rel=0.03)
    assert (ours - exact).norm() < 0.05 * exact.norm()


def test_small_steps_of_bf16_weights_survive_only_with_stochastic_rounding() -> None:
    def run(make) -> float:
        weight = nn.Parameter(torch.ones(SIDE, SIDE, dtype=torch.bfloat16))
        optimizer = make([weight])
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return 1 - float(weight.detach().float().mean())

    options = {**OPTIONS, "lr": 1e-5, "weight_decay": 0.0}
    assert run(lambda p: torch.optim.AdamW(p, **options)) == 0
    assert run(lambda p: AdamW8bit(p, **options)) == pytest.approx(100 * 1e-5, rel=0.1)


def test_small_tensors_keep_exact_moments() -> None:
    ours, twin = (nn.Parameter(torch.ones(8)) for _ in range(2))
    pair = [AdamW8bit([ours], **OPTIONS), torch.optim.AdamW([twin], weight_decay=0.0, **OPTIONS)]
    for step in range(5):
        for parameter, optimizer in zip((ours, twin), pair, strict=True):
            parameter.grad = _noise(8, seed=step)
            optimizer.step()
    torch.testing.assert_close(ours, twin)


def test_the_state_takes_two_bytes_per_weight() -> None:
    weight = nn.Parameter(torch.zeros(256, 256))
    optimizer = AdamW8bit([weight], **OPTIONS)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    tensors = [v for v in optimizer.state[weight].values() if isinstance(v, Tensor)]
    size = sum(t.numel() * t.element_size() for t in tensors)
    assert size == pytest.approx(2 * weight.numel(), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_state_goes_on_bitwise(dtype: torch.dtype) -> None:
    def steps(weight: nn.Parameter, optimizer: AdamW8bit, numbers: range) -> None:
        for step in numbers:
            weight.grad = _noise(SIDE, SIDE, seed=step).to(dtype)
            optimizer.step()

    straight = nn.Parameter(torch.ones(SIDE, SIDE, dtype=dtype))
    whole = AdamW8bit([straight], seed=5, **OPTIONS)
    steps(straight, whole, range(4))

    half = nn.Parameter(torch.ones(SIDE, SIDE, dtype=dtype))
    first = AdamW8bit([half], seed=5, **OPTIONS)
    steps(half, first, range(2))
    resumed = nn.Parameter(half.detach().clone())
    second = AdamW8bit([resumed], seed=5, **OPTIONS)
    second.load_state_dict(first.state_dict())
    steps(resumed, second, range(2, 4))
    assert torch.equal(straight, resumed)


def test_rounding_is_right_in_the_mean_and_leaves_exact_and_special_values() -> None:
    key = torch.tensor(7)
    third = torch.full((200_000,), 1 / 3)
    rounded = stochastic_round(third, key).float()
    assert rounded.unique().numel() == 2
    assert float(rounded.mean()) == pytest.approx(1 / 3, rel=1e-5)
    special = torch.tensor([1.0, -2.5, 0.0, float("inf"), float("-inf"), float("nan")])
    found = stochastic_round(special, key).float()
    torch.testing.assert_close(found, special, rtol=0, atol=0, equal_nan=True)


def test_noise_differs_between_steps_and_parameters() -> None:
    def noise(step: int, number: int) -> Tensor:
        weights = [nn.Parameter(torch.ones(5000, dtype=torch.bfloat16)) for _ in range(number + 1)]
        optimizer = AdamW8bit(weights, **{**OPTIONS, "lr": 1e-5})
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        for _ in range(step):
            for weight in weights:
                weight.data.fill_(1.0)
            optimizer.step()
        return weights[-1].detach() != 1

    first, later, other = noise(1, 0), noise(2, 0), noise(1, 1)
    assert first.any()
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
def test_compiled_it_is_one_kernel_with_the_same_result(caplog: pytest.LogCaptureFixture) -> None:
    def run(compiled: bool) -> list[Tensor]:
        shapes = (96, 96), (70, 70), (300,)
        weights = [
            nn.Parameter(_noise(*shape).to(dtype))
            for shape in shapes
            for dtype in (torch.float32, torch.bfloat16)
        ]
        optimizer = AdamW8bit(weights, weight_decay=0.01, compiled=compiled, **OPTIONS)
        optimizer.gradient_scale = 0.5
        for step in range(3):
            for weight in weights:
                weight.grad = _noise(*weight.shape, seed=step + 1).to(weight.dtype)
            optimizer.step()
        return [weight.detach() for weight in weights]

    plain, fused = run(compiled=False), run(compiled=True)
    assert not [r for r in caplog.records if r.name.startswith("ultrashape_cli")]
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-5)
        assert (one != other).float().mean() < 0.1
    torch._dynamo.reset()
    counters.clear()
    weights = [nn.Parameter(_noise(rows, 256)) for rows in (16, 40, 64, 33)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    AdamW8bit(weights, compiled=True, **OPTIONS).step()
    # One for the first size, one for all others.
    assert counters["stats"]["unique_graphs"] == 2
    weight = nn.Parameter(_noise(64, 64))
    weight.grad = torch.ones_like(weight)
    torch._dynamo.reset()
    _, code = run_and_get_code(AdamW8bit([weight], compiled=True, **OPTIONS).step)
    # As it runs the code calls its kernels by their names, once each.
    kernels = re.findall(r"^ +(cpp_fused\w*)\(", code[0], re.MULTILINE)
    assert len(kernels) == 1, kernels


def test_where_nothing_compiles_it_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: object, **options: object) -> object:
        def kernel(*given: Tensor) -> None:
            raise RuntimeError("Failed to find C compiler")

        return kernel

    monkeypatch.setattr(torch, "compile", broken)
    weight = nn.Parameter(torch.ones(96, 96))
    weight.grad = torch.ones_like(weight)
    optimizer = AdamW8bit([weight], compiled=True, **OPTIONS)
    optimizer.step()
    optimizer.step()
    assert [record.message for record in caplog.records] == [
        "the optimizer is not compiled, and slower: Failed to find C compiler"
    ]
    assert (weight < 1).all()


def test_restoring_takes_no_more_memory_than_the_state() -> None:
    weight = nn.Parameter(torch.ones(1024, 1024))
    weight.grad = torch.ones_like(weight)
    saved = AdamW8bit([weight], **OPTIONS)
    saved.step()
    state = saved.state_dict()
    restored = AdamW8bit([weight], **OPTIONS)
    with Meter() as meter:
        restored.load_state_dict(state)
    assert meter.peak <= 2.1 * weight.numel()


def test_it_is_as_good_as_bitsandbytes() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    _, ours = _solve(lambda p: AdamW8bit(p, weight_decay=0.0, **OPTIONS), torch.float)
    _, theirs = _solve(lambda p: bnb.optim.AdamW8bit(p, weight_decay=0.0, **OPTIONS), torch.float)
    assert ours <= theirs * 1.02
