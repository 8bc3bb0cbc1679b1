import pytest
import torch
from golden_data import assert_near, load_golden
from torch import nn

from ultrashape_cli.training.ema import Ema


def test_averages_match_the_recording():
    golden = load_golden("ema")
    parameter = nn.Parameter(golden["params"][0].clone())
    ema = Ema([("w", parameter)], decay=golden.info["decay"])
    assert_near(ema.shadow["w"], golden["shadow"][0], 1e-6)
    for value, expected in zip(golden["params"][1:], golden["shadow"][1:], strict=True):
        parameter.data.copy_(value)
        ema.update([("w", parameter)])
        assert_near(ema.shadow["w"], expected, 1e-6)


def test_state_round_trip_continues_the_average():
    module = nn.Linear(3, 2)
    ema = Ema(module.named_parameters(), decay=0.9)
    ema.update(module.named_parameters())
    other = Ema(nn.Linear(3, 2).named_parameters(), decay=0.9)
    other.load_state_dict(ema.state_dict())
    for average in (ema, other):
        average.update([(n, p + 1) for n, p in module.named_parameters()])
    assert torch.equal(ema.shadow["weight"], other.shadow["weight"])
    with pytest.raises(ValueError, match="differ"):
        Ema(nn.Linear(3, 2, bias=False).named_parameters(), decay=0.9).load_state_dict(
            ema.state_dict()
        )


def test_half_precision_weights_are_averaged_in_fp32():
    module = nn.Linear(3, 2).bfloat16()
    module.bias.requires_grad_(False)
    ema = Ema(module.named_parameters(), decay=0.999)
    assert list(ema.shadow) == ["weight"]
    assert ema.shadow["weight"].dtype == torch.float32
    ema.shadow["weight"].zero_()
    ema.copy_to(module)
    assert not module.weight.any()
