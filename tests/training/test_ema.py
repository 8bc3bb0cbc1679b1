"""Averaged weights."""

import pytest
import torch

from ultrashape_cli.training.ema import Ema


def test_early_averages_follow_the_weights() -> None:
    ema = Ema({"w": torch.zeros(2)}, 0.999)
    ema.update({"w": torch.ones(2)})
    assert torch.allclose(ema.shadow["w"], torch.full((2,), 1 - 2 / 11))


def test_the_average_moves_by_one_minus_the_decay_in_the_end() -> None:
    ema = Ema({"w": torch.zeros(1)}, 0.5)
    for _ in range(50):
        ema.update({"w": torch.ones(1)})
    before = 1 - ema.shadow["w"].item()
    ema.update({"w": torch.ones(1)})
    assert 1 - ema.shadow["w"].item() == pytest.approx(before / 2)


def test_the_average_of_half_precision_weights_is_fp32_and_a_copy() -> None:
    weights = {"w": torch.ones(3, dtype=torch.bfloat16)}
    ema = Ema(weights, 0.9)
    weights["w"].zero_()
    assert ema.shadow["w"].dtype == torch.float32
    assert ema.shadow["w"].tolist() == [1, 1, 1]


def test_a_restored_average_goes_on_alike() -> None:
    ema = Ema({"w": torch.zeros(1)}, 0.9)
    for _ in range(3):
        ema.update({"w": torch.ones(1)})
    other = Ema({"w": torch.zeros(1)}, 0.9)
    other.restore(ema.shadow, ema.num_updates)
    for each in (ema, other):
        each.update({"w": torch.full((1,), 2.0)})
    assert torch.equal(ema.shadow["w"], other.shadow["w"])


def test_every_few_steps_it_comes_to_the_same_place() -> None:
    often, seldom = (Ema({"w": torch.zeros(1)}, 0.99, every=every) for every in (1, 4))
    for step in range(1, 41):
        before = seldom.shadow["w"].clone()
        for each in (often, seldom):
            each.update({"w": torch.ones(1)})
        if step % 4 == 0:
            torch.testing.assert_close(often.shadow["w"], seldom.shadow["w"])
        else:
            assert torch.equal(seldom.shadow["w"], before)
    moving = torch.zeros(1)
    for _ in range(400):
        moving += 0.01
        for each in (often, seldom):
            each.update({"w": moving})
    torch.testing.assert_close(often.shadow["w"], seldom.shadow["w"], rtol=0.02, atol=0)


def test_in_the_background_it_is_the_same_bit_for_bit() -> None:
    weights = {"w": torch.linspace(0, 1, 100_000)}
    one, other = Ema(weights, 0.9), Ema(weights, 0.9, background=True)
    for _ in range(20):
        other.wait()
        weights["w"].mul_(1.1)
        for each in (one, other):
            each.update(weights)
    assert torch.equal(one.shadow["w"], other.shadow["w"])


def test_what_fails_in_the_background_is_told() -> None:
    ema = Ema({"w": torch.zeros(3)}, 0.9, background=True)
    ema.update({"w": torch.zeros(4)})
    with pytest.raises(RuntimeError, match="size"):
        ema.wait()


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        Ema({}, decay)
