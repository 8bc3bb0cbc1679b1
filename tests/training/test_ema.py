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


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        Ema({}, decay)
