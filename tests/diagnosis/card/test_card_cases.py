"""The cases at small sizes on the CPU, and what they would do with a card."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ultrashape_cli.config.profiles import PROFILES
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.diagnosis.card import decoding, device, kernels, refinement, steps
from ultrashape_cli.diagnosis.card.case import run
from ultrashape_cli.diagnosis.card.context import Context, Failed, NotHere, NoTime
from ultrashape_cli.diagnosis.card.parts import SIZES, Settings, all_names, all_parts
from ultrashape_cli.diagnosis.card.steered import RADIUS, decoded_points, sphere_voxels, steer
from ultrashape_cli.inference.decode import decode_field
from ultrashape_cli.inference.memory import plan_refinement
from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import model_spec

GIB = 2**30


def context(kind: type[Context] = Context, profile: str = "cpu", seconds: float = 60.0) -> Any:
    return kind(
        settings=Settings(device="cpu", model="tiny", profile=profile),
        device=torch.device("cpu"),
        tflops=0.1,
        deadline=time.monotonic() + seconds,
    )


class OnCard(Context):
    """Takes the ways of a card, where those that ask torch about it are stood in for."""

    @property
    def cuda(self) -> bool:
        return True

    @property
    def half(self) -> torch.dtype:
        return torch.float32

    def synchronise(self) -> None:
        pass


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An A40 that counts nothing; `share` is the limit that was set."""
    total = int(44.4 * GIB)
    seen = SimpleNamespace(share=None, peak=300 * 2**20, name="NVIDIA A40")
    answers: dict[str, Any] = {
        "get_device_properties": lambda *device: SimpleNamespace(total_memory=total),
        "get_device_name": lambda *device: seen.name,
        "current_device": lambda: 0,
        "mem_get_info": lambda *device: (total - GIB, total),
        "max_memory_allocated": lambda *device: seen.peak,
        "max_memory_reserved": lambda *device: seen.peak,
        "memory_reserved": lambda *device: 0,
        "reset_peak_memory_stats": lambda *device: None,
        "empty_cache": lambda: None,
        "set_per_process_memory_fraction": lambda share, index: setattr(seen, "share", share),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return seen


def test_names_are_unique_and_the_shares_are_the_whole() -> None:
    for sizes in SIZES.values():
        parts = all_parts(sizes)
        names = list(all_names(parts))
        assert len(names) == len(set(names)) == sum(len(part.cases) for part in parts)
        assert sum(part.share for part in parts) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gib", "names"),
    [
        (11.6, ["whole card"]),
        (15.5, ["16 GB"]),
        (23.5, ["16 GB", "24 GB"]),
        (31.5, ["16 GB", "24 GB", "whole card"]),
        (44.3, ["16 GB", "24 GB", "48 GB"]),
        (79.0, ["16 GB", "24 GB", "48 GB", "whole card"]),
    ],
)
def test_a_card_imitates_the_smaller_ones(gib: float, names: list[str]) -> None:
    found = steps.caps(gib)
    assert [name for name, _ in found] == names
    assert all(size <= gib for _, size in found)
    assert found[-1][1] == pytest.approx(gib, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full-8bit", "full-offload"])
def test_steps_are_timed_by_part(strategy: str) -> None:
    found = steps.measure_steps(context(), strategy)
    assert found["measured_bytes"] is None
    once = found["split"]["update"] + found["split"]["offload"]
    each = (found["seconds_per_step"] - once) / 2
    assert found["seconds_per_run_step"] == pytest.approx(4 * each + once)
    for name in ("weights", "optimizer"):
        planned, measured = found["memory_bytes"][name]
        assert measured == pytest.approx(planned, rel=0.01), name


@pytest.mark.slow
def test_steps_run_within_the_smallest_card_that_they_fit(card: SimpleNamespace) -> None:
    found = steps.measure_steps(context(OnCard, "a40"), "experts-frozen")
    assert (found["cap"], found["cap_gib"]) == ("16 GB", 15.5)
    # Less the driver's context, which is in no allocator's count.
    assert card.share == pytest.approx((15.5 - 0.8) / 44.4, rel=1e-6)
    assert found["measured_bytes"] is not None
    assert found["planned_bytes"] > 0
    assert found["reserved_bytes"] == card.peak
    assert found["context_bytes"] == GIB


def test_a_strategy_that_fits_no_card_is_left_out(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(PROFILES["a40"], memory_gib=0.6)
    monkeypatch.setattr(steps, "CAPS", {"16 GB": 0.5})
    monkeypatch.setattr(steps, "get_profile", lambda name: small)
    with pytest.raises(NotHere, match=r"has 0\.6 GiB, this run needs about 0\.8"):
        steps.measure_steps(context(OnCard, "a40"), "full")
    assert card.share is None


@pytest.mark.slow
def test_a_broken_cap_is_a_failure_with_its_plan(
    card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(steps, "run_benchmark", exhaust)
    with pytest.raises(Failed, match="under 16 GB: CUDA out of memory") as caught:
        steps.measure_steps(context(OnCard, "a40"), "lora")
    assert caught.value.figures["out_of_memory"]
    assert caught.value.figures["planned_bytes"] > 0


def test_what_would_take_too_long_says_how_long() -> None:
    with pytest.raises(NoTime) as caught:
        steps.measure_steps(replace(context(seconds=100.0), tflops=1e-9), "full")
    assert caught.value.seconds > 100


@pytest.mark.parametrize("mode", ["streamed", "int8"])
def test_a_refinement_is_timed_by_stage(mode: Any) -> None:
    found = refinement.measure_refinement(context(), 32, mode)
    assert set(found["seconds"]) == {"condition", "sample", "decode"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    # All nodes of the coarsest grid, and those near the surface.
    assert 33**3 < found["decoded_points"] < 65**3
    assert found["measured_bytes"] is None


def test_a_refinement_on_a_card_is_weighed_by_stage(card: SimpleNamespace) -> None:
    found = refinement.measure_refinement(context(OnCard, "a40"), 32, "resident")
    assert found["measured_stages"] == dict.fromkeys(("condition", "sample", "decode"), card.peak)
    assert found["measured_bytes"] == card.peak
    assert found["planned_bytes"] == max(found["planned_stages"].values())


def test_what_the_allocator_may_lose_is_no_tensor() -> None:
    plan = plan_refinement(
        *(model_spec("tiny"), RefineConfig(memory="resident"), torch.device("cuda"), 32),
        budget=GIB,
        host=GIB,
    )
    tensors = refinement._tensors(plan, context(OnCard, "a40"))
    for stage, size in plan.stages.items():
        assert tensors[stage] == pytest.approx(size / 1.03, rel=1e-6)


def test_the_released_model_is_sampled_as_refine_samples_it() -> None:
    # One evaluation a step, thirteen values of t.
    assert refinement.standard_evaluations("ultrashape-1.0") == 12
    assert refinement.standard_evaluations("tiny") == 1


def test_a_decoded_sphere_is_timed_and_looked_at() -> None:
    found = decoding.measure_decoding(context(), 16)
    assert found["error"] < 1e-4
    assert found["points"] == 65**3


def test_a_decoder_that_misplaces_its_points_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(field: Any, *given: Any, **named: Any):
        return decode_field(lambda points: field(points + 0.001), *given, **named)

    monkeypatch.setattr(decoding, "decode_field", shifted)
    with pytest.raises(Failed, match="off by"):
        decoding.measure_decoding(context(), 16)


def test_a_steered_field_costs_the_networks_and_has_the_spheres_surface() -> None:
    vae = random_networks(model_spec("tiny"), components=("vae",), vae_parts=("decoder",)).vae
    assert vae is not None
    features = torch.randn(1, 8, vae.params.width)
    plain = vae.field(features)
    steer(vae)
    field: Any = vae.field(features)
    points = torch.tensor([[0.0, 0.0, 0.0], [RADIUS, 0.0, 0.0], [0.0, 0.0, 1.0]])
    with torch.no_grad():
        assert field(points).tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-5)
    assert (field.queries, field.bytes_per_query) == (3, plain.bytes_per_query)


def test_the_points_of_a_decoded_sphere_are_foreseen() -> None:
    asked = 0

    def field(points: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(points)
        return ((RADIUS - points.norm(dim=-1)) / 0.01).clamp(-1, 1)

    decode_field(field, 256)
    assert asked == pytest.approx(decoded_points(256), rel=0.6)


@pytest.mark.parametrize(("resolution", "count"), [(128, 32_768), (32, 8000)])
def test_there_are_as_many_voxels_as_tokens(resolution: int, count: int) -> None:
    voxels = sphere_voxels(resolution, count, 0)
    assert voxels.shape == (1, count, 3)
    assert len(voxels[0].unique(dim=0)) == count
    assert torch.equal(voxels, sphere_voxels(resolution, count, 0))


def test_kernels_are_compared() -> None:
    attention = kernels.measure_attention(context(), 64)
    assert (attention["fastest"], attention["gain"]) == ("sdpa", 1.0)
    products = 7 * 2 * 64**2 * 96
    rate = attention["tflops"]["both"]["sdpa"] * 1e12
    assert rate * attention["seconds"]["both"]["sdpa"] == pytest.approx(products)
    experts = kernels.measure_experts(context())
    assert sum(experts["load"]) == 2 * 32
    assert experts["seconds"]["loop"] > 0


def test_compiling_needs_a_compiler_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoTime):
        kernels.measure_compile(context(seconds=10), training=True)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NotHere, match="g\\+\\+"):
        kernels.measure_compile(context(), training=False)


def test_rates_are_measured() -> None:
    products = device.measure_products(context())
    assert products["tflops"] == max(products["by_shape"].values()) > 0
    assert device.measure_bandwidth(context())["gb_per_s"]["memory"] > 0


def test_only_a_card_that_the_profile_names_has_its_peak() -> None:
    assert device.datasheet("a40", "NVIDIA A40") == pytest.approx(149.7)
    assert device.datasheet("a40", "NVIDIA L40S") == 0
    assert device.datasheet("a40", "NVIDIA RTX A4000") == 0


def test_whatever_a_case_raises_becomes_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    request = {
        "settings": {"device": "cpu", "model": "tiny", "profile": "cpu", "seed": 0},
        "tflops": 0.1,
        "deadline": time.monotonic() + 60,
    }
    assert run("twins/rms-norm", request)["status"] == "ok"
    assert run("twins/attention-cudnn", request)["status"] == "skipped"
    late = run("kernels/compile-train", request | {"deadline": time.monotonic() + 5})
    assert (late["status"], late["needs"]) == ("not run", kernels.COMPILE_S["cpu"])
    broken = run("twins/no-such-check", request)
    assert (broken["status"], broken["broken"]) == ("failed", True)
    assert broken["reason"].startswith("KeyError")
    unknown = {**request, "settings": request["settings"] | {"model": "other"}}
    assert "other" in run("steps/full", unknown)["reason"]
