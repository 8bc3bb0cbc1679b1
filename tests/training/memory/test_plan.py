"""The plan before a run: counted on the real modules, checked against card and host."""

from __future__ import annotations

import dataclasses

import pytest

from ultrashape_cli.config.resolve import Resolved, resolve
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.training.memory import plan as planning
from ultrashape_cli.training.memory.plan import check_plan, lower_strategy, plan_run

GIB = 2**30


def _resolved(profile: str, **settings: object) -> Resolved:
    flags = {f"train.{key}": value for key, value in settings.items()}
    return resolve(flags={**flags, "profile": profile}, environ={})


def _plan(profile: str, **settings: object) -> planning.RunPlan:
    resolved = _resolved(profile, **settings)
    return plan_run(resolved.config, resolved.profile)


@pytest.mark.slow
def test_the_full_model_is_counted_as_it_is() -> None:
    found = _plan("a40").footprint
    # Spec section 0; 144.5 TFLOP per microbatch is the laboratory's own count.
    assert found.total == found.trained == 3_050_758_720
    assert found.weights == 4 * found.total
    assert found.gradients == 4 * found.trained
    assert found.optimizer == pytest.approx(2.03 * found.trained, rel=0.01)
    assert found.model_flops == pytest.approx(144.5e12, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["h100", "a40", "a5000", "rtx5070ti-16"])
def test_every_profile_fits_its_own_card(profile: str) -> None:
    resolved = _resolved(profile)
    check_plan(plan_run(resolved.config, resolved.profile), resolved.config, resolved.profile)


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused_with_the_next_strategy() -> None:
    resolved = _resolved("a5000", model="tiny", strategy="full-8bit", microbatch=64)
    settings = dataclasses.replace(resolved.config.train, activation_checkpointing="all")
    config = dataclasses.replace(resolved.config, train=settings)
    card = dataclasses.replace(resolved.profile, memory_gib=1.0)
    plan = plan_run(config, card)
    with pytest.raises(ConfigError, match="`a5000` has 1 GiB, this run needs about") as error:
        check_plan(plan, config, card)
    assert error.value.hint == "--set train.strategy=full-offload"


@pytest.mark.slow
def test_blocks_are_recomputed_as_far_as_the_card_needs_it() -> None:
    resolved = _resolved("h100", model="tiny", microbatch=16, activation_checkpointing="auto")

    def plan(gib: float) -> planning.RunPlan:
        return plan_run(resolved.config, dataclasses.replace(resolved.profile, memory_gib=gib))

    depth = 7
    tight, wide = plan(0.9), plan(80.0)
    assert (tight.checkpoint_blocks, wide.checkpoint_blocks) == (depth, 0)
    middle = (tight.footprint.peak + wide.footprint.peak) / 2
    some = plan((middle + planning.CONTEXT_BYTES) / (1 - planning.HEADROOM) / GIB)
    assert 0 < some.checkpoint_blocks < depth
    assert some.footprint.peak <= middle


def test_offload_needs_host_memory(monkeypatch) -> None:
    resolved = _resolved("cpu", model="tiny", strategy="full-offload", dtype="bf16")
    plan = plan_run(resolved.config, resolved.profile)
    assert plan.footprint.host == pytest.approx(16 * plan.footprint.trained, rel=0.01)
    check_plan(plan, resolved.config, resolved.profile)

    class Little:
        total = 1000

    monkeypatch.setattr("psutil.virtual_memory", Little)
    with pytest.raises(ConfigError, match="this host has 0 GiB"):
        check_plan(plan, resolved.config, resolved.profile)


def test_shards_divide_what_does_not_move() -> None:
    one = _plan("cpu", model="tiny", train_conditioner=False)
    resolved = resolve(
        flags={
            "profile": "cpu",
            "train.model": "tiny",
            "train.strategy": "sharded",
            "launch.num_processes": 4,
        },
        environ={},
    )
    four = plan_run(resolved.config, resolved.profile)
    assert dict(four.rows())["optimizer"] == one.footprint.optimizer // 4


@pytest.mark.slow
def test_longer_runs_take_longer() -> None:
    short, long = (_plan("a40", model="tiny", steps=n) for n in (10, 1000))
    assert long.hours == pytest.approx(100 * short.hours)
    assert short.hours > 0


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"strategy": "full"}, "train.activation_checkpointing=all"),
        ({"strategy": "full", "activation_checkpointing": "all"}, "strategy=full-8bit"),
        ({"strategy": "experts-frozen", "activation_checkpointing": "all"}, "strategy=lora"),
    ],
)
def test_the_next_lower_strategy_is_named(settings: dict[str, str], option: str) -> None:
    found = lower_strategy(_resolved("cpu", **settings).config)
    assert found is not None
    assert option in found


def test_below_adapters_there_is_nothing() -> None:
    config = _resolved("cpu", strategy="lora", activation_checkpointing="all").config
    assert lower_strategy(config) is None
