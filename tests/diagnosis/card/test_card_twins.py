"""Every check passes here, on a card too, and can fail."""

from __future__ import annotations

import pytest
import torch

from ultrashape_cli.diagnosis.card import twins, twins_training
from ultrashape_cli.diagnosis.card.context import NotHere
from ultrashape_cli.diagnosis.card.parts import TWINS
from ultrashape_cli.diagnosis.card.twins import NETWORK_CHECKS, Twin
from ultrashape_cli.diagnosis.card.twins_training import TRAINING_CHECKS
from ultrashape_cli.models import norms
from ultrashape_cli.models.moe import MoEFeedForward
from ultrashape_cli.training.memory import adamw8bit
from ultrashape_cli.training.memory.offload import OffloadedAdamW

CPU = torch.device("cpu")
CHECKS = NETWORK_CHECKS | TRAINING_CHECKS
OF_CARDS = {"attention-cudnn", "attention-flash"}
COMPILED = {"adamw-compiled"}


def test_the_checks_are_those_named() -> None:
    assert tuple(CHECKS) == TWINS


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in COMPILED else name
        for name in TWINS
        if name not in OF_CARDS
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_check_passes_on_a_cpu(name: str) -> None:
    found = CHECKS[name](CPU)
    assert found.passed, f"error {found.error:g}, {found.allowed:g} allowed {found.note}"


@pytest.mark.parametrize("name", sorted(OF_CARDS))
def test_kernels_of_cards_are_told_to_be_missing(name: str) -> None:
    with pytest.raises(NotHere, match="does not run on this device"):
        CHECKS[name](CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", TWINS)
def test_a_check_passes_on_a_gpu(name: str) -> None:
    try:
        found = CHECKS[name](torch.device("cuda"))
    except NotHere as absent:
        pytest.skip(str(absent))
    assert found.passed, f"error {found.error:g}, {found.allowed:g} allowed {found.note}"


def test_an_error_that_is_no_number_does_not_pass() -> None:
    assert not Twin(error=float("nan"), allowed=1.0).passed


def _fails(name: str) -> str:
    found = CHECKS[name](CPU)
    assert not found.passed
    return found.note


def test_a_norm_that_autocast_widens_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms.RMSNorm, "forward", lambda norm, x: x.float() * norm.weight)
    assert _fails("rms-norm") == "returns torch.float32"


def test_a_norm_with_another_centre_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = norms.LayerNorm.forward
    monkeypatch.setattr(norms.LayerNorm, "forward", lambda norm, x: plain(norm, x + 1) * 1.02)
    _fails("layer-norm")


def test_attention_with_another_scale_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setitem(twins.BACKENDS, "sdpa", lambda q, k, v: scaled(q, k, v, scale=0.13))
    _fails("attention-sdpa")


def test_a_broken_kernel_is_not_taken_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(message: str):
        def run(*tensors: object) -> None:
            raise RuntimeError(message)

        return run

    monkeypatch.setitem(twins.BACKENDS, "sdpa", raising("No available kernel. Aborting."))
    with pytest.raises(NotHere, match="No available kernel"):
        CHECKS["attention-sdpa"](CPU)
    monkeypatch.setitem(twins.BACKENDS, "sdpa", raising("an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        CHECKS["attention-sdpa"](CPU)


def test_routes_that_are_not_kept_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MoEFeedForward.forward

    def forgetful(layer: MoEFeedForward, x: torch.Tensor):
        kept = layer._routes
        if kept is not None and kept.chosen is not None:
            layer._routes = None
        found = forward(layer, x)
        layer._routes = kept
        return found

    monkeypatch.setattr(MoEFeedForward, "forward", forgetful)
    assert _fails("ties") == "recomputed tokens go elsewhere"


def test_rounding_to_the_nearest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins_training, "stochastic_round", lambda values, key: values.bfloat16())
    assert _fails("rounding") == "the key does not decide"


def test_moments_that_are_lost_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw8bit, "_decode_signed", lambda codes, scale: torch.zeros(codes.shape))
    _fails("adamw-8bit")


def test_gradients_that_are_counted_once_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: OffloadedAdamW, position: int, gradient: torch.Tensor) -> None:
        self.masters[position].grad = gradient.to(torch.float32, copy=True)

    monkeypatch.setattr(OffloadedAdamW, "_add", overwrite)
    _fails("offload")


def test_a_resumed_run_that_forgets_its_moments_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw8bit.AdamW8bit, "load_state_dict", lambda self, state: None)
    _fails("resume")


def test_an_optimizer_that_falls_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda kernel, **options: kernel)
    assert _fails("adamw-compiled") == "could not be compiled"
