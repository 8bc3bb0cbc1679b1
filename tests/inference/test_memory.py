from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch.cuda._utils import _get_device_index

from ultrashape_cli.config.choices import ViewMode
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.inference import memory
from ultrashape_cli.inference.memory import (
    OutOfMemory,
    check_plan,
    is_out_of_memory,
    limit_device,
    measure_refinement,
    memory_errors,
    plan_refinement,
)
from ultrashape_cli.models.registry import ModelSpec, model_spec

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
GIB = 2**30
BF16 = RefineConfig(dtype="bf16")


@pytest.fixture(scope="module")
def full() -> ModelSpec:
    return model_spec("ultrashape-1.0")


@pytest.fixture(autouse=True)
def measure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full-size measurements take seconds; the plan asks for the same ones again and again."""

    def cached(spec, config, tokens, **given):
        # Only these settings change what is measured.
        key = (spec.name, config.dtype, tokens, *sorted(given.items()))
        if key not in MEASURED:
            MEASURED[key] = measure_refinement(spec, config, tokens, **given)
        return MEASURED[key]

    monkeypatch.setattr("ultrashape_cli.inference.memory.measure_refinement", cached)


MEASURED: dict = {}


def test_weights_are_counted_as_they_are() -> None:
    networks = ball_networks()
    found = measure_refinement(SMALL, RefineConfig(), 100, accelerator=False)
    assert networks.dit is not None
    assert found.weights["sample"] == sum(4 * p.numel() for p in networks.dit.parameters())
    assert found.blocks == sum(4 * p.numel() for p in networks.dit.blocks.parameters())
    half = measure_refinement(SMALL, BF16, 100, accelerator=False)
    assert half.weights["sample"] * 2 == found.weights["sample"]


def test_more_tokens_need_more_activations() -> None:
    few, many = (
        measure_refinement(SMALL, RefineConfig(), n, accelerator=False) for n in (1000, 4000)
    )
    for stage in ("sample", "decode"):
        assert 3 < many.activations[stage] / few.activations[stage] < 4.5
    assert many.activations["condition"] == few.activations["condition"]


@pytest.mark.parametrize(
    ("tokens", "gib", "mode"),
    [(32_768, 16, "resident"), (8192, 8, "streamed")],
)
def test_the_full_model_fits_the_cards_it_should(
    full: ModelSpec, tokens: int, gib: float, mode: str
) -> None:
    plan = plan_refinement(full, BF16, CUDA, tokens, budget=int(gib * GIB), host=64 * GIB)
    assert plan.fits
    assert plan.mode == mode
    assert plan.needed < gib * GIB


def test_without_host_memory_the_weights_are_quantised(full: ModelSpec) -> None:
    plan = plan_refinement(full, BF16, CUDA, 8192, budget=8 * GIB, host=5 * GIB)
    assert plan.mode == "int8"
    assert plan.fits


def test_less_memory_makes_smaller_chunks_down_to_a_bound(full: ModelSpec) -> None:
    large, small = (
        plan_refinement(full, replace(BF16, memory="streamed"), CUDA, 8192, budget=b, host=64 * GIB)
        for b in (24 * GIB, GIB)
    )
    assert large.chunk_size == BF16.chunk_size
    assert small.chunk_size == 256


def test_a_plan_that_does_not_fit_names_the_tokens_that_do() -> None:
    config = RefineConfig(chunk_size=256)
    resident = plan_refinement(SMALL, config, CUDA, 4096, budget=0, host=64 * GIB)
    budget = resident.fixed + (resident.needed - resident.fixed) // 3
    plan = plan_refinement(SMALL, config, CUDA, 4096, budget=budget, host=64 * GIB)
    assert not plan.fits
    with pytest.raises(OutOfMemory) as caught:
        check_plan(plan, SMALL, config, CUDA)
    tokens = int(caught.value.option.removeprefix("--tokens "))
    assert 64 <= tokens < 4096
    assert plan_refinement(SMALL, config, CUDA, tokens, budget=budget, host=64 * GIB).fits


def test_a_limit_too_low_for_any_plan_names_the_least_that_works() -> None:
    config = replace(RefineConfig(), max_memory_gib=0.001)
    with pytest.raises(OutOfMemory) as caught:
        check_plan(plan_refinement(SMALL, config, CPU, 1024), SMALL, config, CPU)
    least = float(caught.value.option.removeprefix("--max-memory-gib "))
    wider = replace(config, max_memory_gib=least)
    assert plan_refinement(SMALL, wider, CPU, 1024).fits


def test_a_machine_too_small_for_any_plan_names_what_it_lacks(monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda config, device: 0)
    config = RefineConfig()
    with pytest.raises(OutOfMemory) as caught:
        check_plan(plan_refinement(SMALL, config, CPU, 128), SMALL, config, CPU)
    assert caught.value.option == ""
    assert "GiB of free memory" in (caught.value.hint or "")


def test_the_bound_of_the_settings_is_the_budget() -> None:
    plan = plan_refinement(SMALL, replace(RefineConfig(), max_memory_gib=0.25), CPU, 100)
    assert plan.budget == GIB // 4
    assert plan.fixed >= psutil.Process().memory_info().rss // 2


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("sample", "--tokens 1"):
        raise RuntimeError("shapes differ")
    for words in ("not enough memory: you tried", "can't allocate memory: you tried"):
        assert is_out_of_memory(RuntimeError(f"DefaultCPUAllocator: {words}"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8.63 GB"))


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A Mac's memory: what Metal may have, what it has, what the host has left."""
    found = {"recommended": 12 * GIB, "allocated": 2 * GIB, "available": 13 * GIB}
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: found.update(allocated=GIB))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: found["recommended"])
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: found["allocated"])
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=found["available"])
    )
    return found


def test_mps_may_use_what_metal_and_the_host_have_left(mac: dict[str, int]) -> None:
    assert plan_refinement(SMALL, RefineConfig(), MPS, 100).budget == 11 * GIB
    mac["available"] = 5 * GIB
    assert plan_refinement(SMALL, RefineConfig(), MPS, 100).budget == 5 * GIB
    mac["recommended"] = 0
    plan = plan_refinement(SMALL, RefineConfig(), MPS, 100)
    assert plan.budget == 0
    with pytest.raises(OutOfMemory) as caught:
        check_plan(plan, SMALL, RefineConfig(), MPS)
    assert caught.value.option == "--device cpu"


@pytest.mark.slow
def test_on_mps_all_networks_count_and_only_codes_save_memory(
    full: ModelSpec, mac: dict[str, int]
) -> None:
    mac["recommended"] = 64 * GIB
    mac["available"] = 64 * GIB
    resident = plan_refinement(full, BF16, MPS, 8192)
    assert resident.mode == "resident"
    assert resident.fixed == 0
    weights = sum(measure_refinement(full, BF16, 8192, accelerator=False).weights.values())
    assert min(resident.stages.values()) >= weights
    mac["available"] = resident.needed - 1
    assert plan_refinement(full, BF16, MPS, 8192).mode == "int8"


def test_a_limit_is_set_on_a_card_named_without_its_index(monkeypatch) -> None:
    shares = []

    def set_share(share: float, device: object = None) -> None:
        # As torch does: of a device without an index it makes an error.
        shares.append((share, 0 if device is None else _get_device_index(device)))

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**34, 2**34))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_share)
    limit_device(RefineConfig(max_memory_gib=4.0), CUDA)
    limit_device(RefineConfig(max_memory_gib=4.0), torch.device("cuda", 1))
    assert shares == [(0.25, 0), (0.25, 1)]


def test_the_tokens_of_all_views_count_where_they_are_seen_at_once() -> None:
    def needed(mode: ViewMode, views: int) -> int:
        config = replace(BF16, view_mode=mode, memory="resident")
        plan = plan_refinement(SMALL, config, CUDA, 100, budget=8 * GIB, host=64 * GIB, views=views)
        return plan.stages["sample"]

    assert needed("trained", 4) > needed("trained", 1) == needed("spatial", 1)
    assert needed("spatial", 4) == needed("spatial", 1)
