"""The optimizer in host memory against torch's own, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ultrashape_cli.training.memory import offload
from ultrashape_cli.training.memory.offload import OffloadedAdamW

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6}


def _nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 30), nn.Linear(30, 1))
    twin = nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 30), nn.Linear(30, 1))
    twin.load_state_dict(net.state_dict())
    return net, twin


def _offloaded(net: nn.Module) -> OffloadedAdamW:
    parameters = list(net.parameters())
    return OffloadedAdamW([{"params": parameters}], {p: p.detach() for p in parameters}, **OPTIONS)


def _inputs(step: int) -> Tensor:
    return torch.randn(8, 40, generator=torch.Generator().manual_seed(step))


def test_buckets_and_a_scale_step_as_one_clipped_adamw_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offload, "BUCKET_ELEMENTS", 1000)
    net, twin = _nets()
    ours = _offloaded(net)
    theirs = torch.optim.AdamW(twin.parameters(), fused=True, **OPTIONS)
    for step in range(4):
        for part in range(2):
            for one in (net, twin):
                one(_inputs(10 * step + part)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        norm = torch.nn.utils.get_total_norm([m.grad for m in ours.masters])
        assert norm > 0.5
        ours.gradient_scale = float(0.5 / (norm + 1e-6))
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    assert len(ours.inner.param_groups[0]["params"]) == 6
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_sums_keep_their_memory() -> None:
    net, _ = _nets()
    net.bfloat16()
    ours = _offloaded(net)
    places = []
    for _ in range(2):
        for _ in range(2):
            net(_inputs(0).bfloat16()).sum().backward()
        sums = [master.grad for master in ours.masters]
        places.append([total.data_ptr() for total in sums])
        single = torch.autograd.grad(net(_inputs(0).bfloat16()).sum(), list(net.parameters()))
        for total, one in zip(sums, single, strict=True):
            torch.testing.assert_close(total, 2 * one.float())
        ours.zero_grad()
        assert all(master.grad is None for master in ours.masters)
    assert places[0] == places[1]
