"""The estimate of a step, beside what it is made of."""

from __future__ import annotations

import dataclasses

import pytest

from ultrashape_cli.config.profiles import PROFILES, HardwareProfile
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.training.memory.plan import plan_run
from ultrashape_cli.training.memory.step_time import StepTime


def _time(profile: HardwareProfile, **settings: object) -> StepTime:
    flags = {f"train.{key}": value for key, value in settings.items()}
    flags |= {"profile": profile.name, "train.model": "tiny"}
    return plan_run(resolve(flags=flags, environ={}).config, profile).step_time


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "cpu"])
def test_every_card_tells_how_fast_it_is(name: str) -> None:
    card = PROFILES[name]
    assert 0.3 <= card.attention_share <= card.product_share <= 0.9
    assert 600 <= card.bandwidth_gbs <= 5000


def test_each_part_follows_what_limits_it() -> None:
    card = PROFILES["a40"]
    usual = _time(card)
    faster = _time(dataclasses.replace(card, peak_bf16_tflops=2 * card.peak_bf16_tflops))
    assert faster.products == pytest.approx(usual.products / 2)
    assert faster.attention == pytest.approx(usual.attention / 2)
    assert faster.other == usual.other
    wider = _time(dataclasses.replace(card, bandwidth_gbs=2 * card.bandwidth_gbs))
    assert wider.other == pytest.approx(usual.other / 2)
    assert wider.update == pytest.approx(usual.update / 2)
    # The small network keeps no card busy: launching is what takes the time.
    assert usual.launching > 5 * (usual.products + usual.attention + usual.other)


def test_what_the_host_steps_takes_its_time_there() -> None:
    card = PROFILES["a5000"]
    here, there = (_time(card, strategy=name) for name in ("full-8bit", "full-offload"))
    assert here.host == 0
    assert there.host > 0
    assert there.seconds == pytest.approx(sum(seconds for _, seconds in there.parts()))


def test_decoding_what_is_sampled_takes_its_time() -> None:
    card = PROFILES["a40"]
    assert _time(card).decoding == 0
    assert _time(card, objective="grpo", rewards=["chamfer:1"]).decoding > 0
